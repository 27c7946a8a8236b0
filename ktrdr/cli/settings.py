"""Settings and logging as a command wants them."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
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


def settings_for(context: typer.Context, *, is_service: bool = False, **overrides: object) -> "Settings":
    """Return the settings, with overrides that are not None on top, and set logging up.

    Args:
        context: of the command; has the number of ``-v``.
        is_service: whether the command's log is what it shows; others are quiet, as they show their own.
        overrides: by name of the setting.

    Raises:
        SettingsError: a variable is wrong.
    """
    from ktrdr.logs import LogLevel, configure_logging
    from ktrdr.settings import load_settings

    settings = load_settings(**overrides)
    verbose = context.find_root().obj or 0
    shown: LogLevel = settings.log_level if is_service else "error"
    if verbose:
        shown = "debug" if is_service or verbose > 1 else "info"
    configure_logging(shown, settings.log_format)
    # What is to be shown in such detail must also be told by agents and their runners.
    return settings.model_copy(update={"log_level": "debug"}) if shown == "debug" else settings
