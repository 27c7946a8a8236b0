"""Settings and logging as a command wants them."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from ktrdr.client.port import Installation
    from ktrdr.settings import Settings

DataOption = Annotated[
    Path | None, typer.Option("--data", help="Directory of bars, SYMBOL_TIMEFRAME.csv or .parquet.")
]


BrokerOption = Annotated[
    str | None,
    typer.Option(
        "--broker",
        help="amqp(s)://user:password@host/vhost. Better in KTRDR_BROKER_URL: a command line can be read by "
        "every user of the machine.",
        metavar="URL",
    ),
]
PrefixOption = Annotated[
    str | None,
    typer.Option("--prefix", help="Names on the broker begin with it.", show_default="ktrdr", metavar="NAME"),
]


@dataclass(frozen=True, slots=True)
class GlobalOptions:
    """What is said before the name of a command."""

    verbose: int = 0
    server: str | None = None


def settings_for(
    context: typer.Context, *, is_service: bool = False, is_elsewhere: bool = False, **overrides: object
) -> "Settings":
    """Return the settings, with overrides that are not None on top, and set logging up.

    Args:
        context: of the command.
        is_service: whether the command's log is what it shows; others are quiet, as they show their own.
        is_elsewhere: whether what the command is about may be at a server, which this command cannot ask;
            those that are about this machine take no notice of KTRDR_SERVER.
        overrides: by name of the setting.

    Raises:
        SettingsError: a variable is wrong; or a server is named, and the command works on this machine.
    """
    from ktrdr.errors import SettingsError
    from ktrdr.settings import load_settings

    options = _options(context)
    settings = _with_logging(load_settings(**overrides), options, is_service=is_service)
    named = options.server or (settings.server if is_elsewhere else None)
    if named is not None:
        raise SettingsError(
            f"`{context.command_path}` works on the machine where it is run, and not by way of {named}.",
            fix="Run it on the machine of the server, without --server and KTRDR_SERVER.",
        )
    return settings


def installation_for(
    context: typer.Context, *, data: Path | None = None, broker: str | None = None, prefix: str | None = None
) -> "Installation":
    """Return what the command works with: the installation of this machine, or that of a server.

    Args:
        context: of the command.
        data: the directory whose bars this machine trains with; a server has its own.
        broker: the URL of the broker that this machine asks; likewise.
        prefix: what names on it begin with.

    Raises:
        SettingsError: a variable is wrong, or the address of the server; or something of this machine is
            named, and a server.
    """
    from ktrdr.cli.output import print_warning
    from ktrdr.client.opening import open_installation
    from ktrdr.errors import SettingsError
    from ktrdr.settings import load_settings

    options = _options(context)
    named = load_settings(server=options.server, data_dir=data, broker_url=broker, broker_prefix=prefix)
    settings = _with_logging(named, options)
    if settings.server is not None and data is not None:
        raise SettingsError(
            f"--data names bars of this machine, and {settings.server} trains with its own.",
            fix="Leave --data out, or train without --server and KTRDR_SERVER.",
        )
    if settings.server is not None and (broker is not None or prefix is not None):
        raise SettingsError(
            f"--broker and --prefix name a broker that this machine asks, and {settings.server} has its own.",
            fix="Leave them out, or ask the broker without --server and KTRDR_SERVER.",
        )
    installation = open_installation(settings)
    if installation.is_exposed:
        print_warning(
            f"{settings.server} is not https: whoever is on the way can read the token, and use it."
        )
    return installation


def _options(context: typer.Context) -> GlobalOptions:
    return context.find_root().obj or GlobalOptions()


def _with_logging(settings: "Settings", options: GlobalOptions, *, is_service: bool = False) -> "Settings":
    from ktrdr.logs import LogLevel, configure_logging

    shown: LogLevel = settings.log_level if is_service else "error"
    if options.verbose:
        shown = "debug" if is_service or options.verbose > 1 else "info"
    configure_logging(shown, settings.log_format)
    # What is to be shown in such detail must also be told by agents and their runners.
    return settings.model_copy(update={"log_level": "debug"}) if shown == "debug" else settings
