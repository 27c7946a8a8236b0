"""`ktrdr dead`: messages that could not be read or handled."""

import sys
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from ktrdr.cli.output import EXIT_FAILED, JsonOption, err, out, print_json, printable, reporting_errors
from ktrdr.cli.settings import BrokerOption, PrefixOption, installation_for

if TYPE_CHECKING:
    from ktrdr.bus.dead_letter_box import LetterChoice
    from ktrdr.bus.letter_records import LetterOutcome, LetterRecord

app = typer.Typer(help="Dead letters: what could not be read or handled, and why.", no_args_is_help=True)

IdsArgument = Annotated[
    list[str] | None, typer.Argument(help="Ids, or the unique beginning or end of each.", metavar="ID…")
]
AllOption = Annotated[bool, typer.Option("--all", help="All of them, instead of ids.")]
ReasonOption = Annotated[
    str | None, typer.Option("--reason", "-r", help="Only those whose reason contains this.", metavar="TEXT")
]
LimitOption = Annotated[
    int, typer.Option("--limit", "-l", min=1, max=10_000, help="Look at so many, the oldest first.")
]

_LIMIT = 1000


@app.command("list")
def list_letters(
    context: typer.Context,
    reason: ReasonOption = None,
    limit: LimitOption = _LIMIT,
    broker: BrokerOption = None,
    prefix: PrefixOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the dead letters, oldest first; nothing is taken away."""
    with reporting_errors(as_json=as_json):
        dead_letters = installation_for(context, broker=broker, prefix=prefix).dead_letters
        found = dead_letters.list(reason=reason, limit=limit)
        from ktrdr.cli.dead_view import print_letter
    if as_json:
        print_json([asdict(letter) for letter in found.letters])
        return
    now = datetime.now(UTC)
    for letter in found.letters:
        print_letter(letter, now)
    if not found.letters:
        nothing = reason is None or not found.looked_at
        err.print("No dead letters." if nothing else "No dead letters of that reason.")
    else:
        err.print(
            f"{_counted(found.letters)}. Look: ktrdr dead show ID. Put back: ktrdr dead redrive ID. "
            "Throw away: ktrdr dead discard ID.",
            style="dim",
            soft_wrap=True,
        )
    if found.may_be_more:
        err.print(f"There may be more: these are of {found.looked_at}; see --limit.", style="yellow")
    if not found.on_broker:
        err.print(
            "No broker is named there: these are of the bus within `ktrdr serve`, and end with it.",
            style="dim",
            soft_wrap=True,
        )


@app.command()
def show(
    context: typer.Context,
    letter: Annotated[str, typer.Argument(help="Id, or its unique beginning or end.", metavar="ID")],
    limit: LimitOption = _LIMIT,
    broker: BrokerOption = None,
    prefix: PrefixOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show a dead letter: its event, or why that cannot be read and how its body begins."""
    with reporting_errors(as_json=as_json):
        dead_letters = installation_for(context, broker=broker, prefix=prefix).dead_letters
        found = dead_letters.show(letter, limit=limit)
        from ktrdr.cli.dead_view import print_whole_letter
    if as_json:
        print_json([asdict(each) for each in found.letters])
    else:
        now = datetime.now(UTC)
        for number, each in enumerate(found.letters):
            if number:
                out.print()
            print_whole_letter(each, now)
    if (more := found.count - len(found.letters)) > 0:
        err.print(f"{more} more of this id.", style="yellow")


@app.command()
def redrive(
    context: typer.Context,
    ids: IdsArgument = None,
    everything: AllOption = False,
    reason: ReasonOption = None,
    limit: LimitOption = _LIMIT,
    broker: BrokerOption = None,
    prefix: PrefixOption = None,
    as_json: JsonOption = False,
) -> None:
    """Put dead letters back to the queues where they died, under the same ids.

    Do it when what they died of is mended. A letter leaves the box only when its queue has it for sure.
    """
    with reporting_errors(as_json=as_json):
        dead_letters = installation_for(context, broker=broker, prefix=prefix).dead_letters
        choice = _choice(ids, everything=everything, reason=reason)
        outcomes = dead_letters.redrive(choice, limit=limit)
    _report(outcomes, "put back", as_json=as_json)


@app.command()
def discard(
    context: typer.Context,
    ids: IdsArgument = None,
    everything: AllOption = False,
    reason: ReasonOption = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    limit: LimitOption = _LIMIT,
    broker: BrokerOption = None,
    prefix: PrefixOption = None,
    as_json: JsonOption = False,
) -> None:
    """Throw dead letters away, for ever; asks first."""
    with reporting_errors(as_json=as_json):
        dead_letters = installation_for(context, broker=broker, prefix=prefix).dead_letters
        from ktrdr.bus.dead_letter_box import LetterChoice

        choice = _choice(ids, everything=everything, reason=reason)
        if not yes:
            # Held while somebody thinks about it, the box would look empty to others.
            letters = choice.of(dead_letters.list(reason=None, limit=limit).letters)
            if letters:
                _confirm(letters)
            choice = LetterChoice(ids=[letter.id for letter in letters])
        outcomes = dead_letters.discard(choice, limit=limit)
    _report(outcomes, "thrown away", as_json=as_json)


def _choice(ids: Sequence[str] | None, *, everything: bool, reason: str | None) -> "LetterChoice":
    from ktrdr.bus.dead_letter_box import LetterChoice
    from ktrdr.errors import SettingsError

    if bool(ids) == everything or (ids and reason):
        raise SettingsError(
            "It is not clear which dead letters are meant.",
            fix="Name ids, or --all, or --all with --reason TEXT.",
        )
    return LetterChoice(ids or None, reason)


def _confirm(letters: "Sequence[LetterRecord]") -> None:
    from ktrdr.cli.dead_view import print_letter
    from ktrdr.errors import SettingsError

    if not can_ask():
        raise SettingsError("Nobody can be asked whether to throw them away.", fix="Say --yes.")
    now = datetime.now(UTC)
    for letter in letters:
        print_letter(letter, now)
    typer.confirm(f"Throw {_counted(letters)} away, for ever?", abort=True, err=True)


def can_ask() -> bool:
    """Return whether somebody is there to answer."""
    return sys.stdin.isatty()


def _report(outcomes: "Sequence[LetterOutcome]", done: str, *, as_json: bool) -> None:
    from ktrdr.bus.dead_letter_box import Fate

    kept = [outcome for outcome in outcomes if outcome.fate is Fate.KEPT]
    if as_json:
        print_json([asdict(outcome) for outcome in outcomes])
    else:
        for outcome in outcomes:
            if outcome.fate is Fate.KEPT:
                line = Text(f"✗ {outcome.id} stays: {printable(outcome.problem or '')}", style="red")
            else:
                where = f" to {outcome.from_queue}" if outcome.fate is Fate.REDRIVEN else ""
                line = Text(printable(f"✓ {outcome.id} {done}{where}"), style="green")
            out.print(line, soft_wrap=True)
        err.print(
            f"{len(outcomes) - len(kept)} {done}, {len(kept)} kept." if outcomes else "No dead letters."
        )
    if kept:
        raise typer.Exit(EXIT_FAILED)


def _counted(letters: Sequence[object]) -> str:
    return f"{len(letters)} dead letter{'s' if len(letters) != 1 else ''}"
