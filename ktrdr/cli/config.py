"""`ktrdr config`: what may be changed while everything runs."""

from typing import TYPE_CHECKING, Annotated

import typer

from ktrdr.cli.output import JsonOption, err, out, print_json, reporting_errors, table
from ktrdr.cli.settings import installation_for

if TYPE_CHECKING:
    from ktrdr.training.execution_mode_selector import Mode

app = typer.Typer(
    help="Change what may be changed while everything runs; it holds for every process on the database.",
    no_args_is_help=True,
)

_DEFAULT_MODE = "default_mode"

NameArgument = Annotated[str, typer.Argument(help="default_mode: where to train what names no mode.")]


@app.command("get")
def get(
    context: typer.Context,
    name: Annotated[
        str | None, typer.Argument(help="Only the value of this one, as in default_mode.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Show what is set, and who says so."""
    with reporting_errors(as_json=as_json):
        if name is not None:
            _check(name)
        found = installation_for(context).default_mode()
    if as_json:
        print_json({_DEFAULT_MODE: {"value": found.mode.value, "source": found.source}})
    elif name is not None:
        out.print(found.mode.value)
    else:
        listing = table("name", "value", "because")
        listing.add_row(_DEFAULT_MODE, found.mode.value, found.source)
        out.print(listing)


@app.command("set")
def set_(
    context: typer.Context,
    name: NameArgument,
    value: Annotated[str, typer.Argument(help="auto, local or host.")],
    as_json: JsonOption = False,
) -> None:
    """Set a value, for what is asked for from now on; what was accepted stays where it is."""
    with reporting_errors(as_json=as_json):
        _check(name)
        mode = parse_mode(value)
        installation_for(context).set_default_mode(mode)
    if as_json:
        print_json({_DEFAULT_MODE: {"value": mode.value, "source": "set at run time"}})
    else:
        err.print(f"{_DEFAULT_MODE} is {mode.value} from now on.")


def parse_mode(text: str) -> "Mode":
    """Return the mode of that name.

    Raises:
        SettingsError: there is none.
    """
    from ktrdr.errors import SettingsError
    from ktrdr.training.execution_mode_selector import Mode

    try:
        return Mode(text)
    except ValueError as error:
        raise SettingsError(f"'{text}' is not a mode.", fix=f"Choose one of: {', '.join(Mode)}.") from error


def _check(name: str) -> None:
    from ktrdr.errors import SettingsError

    if name != _DEFAULT_MODE:
        raise SettingsError(f"There is nothing called '{name}' to configure.", fix=f"Name {_DEFAULT_MODE}.")
