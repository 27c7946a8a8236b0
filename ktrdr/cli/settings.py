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
    from ktrdr.logs import configure_logging
    from ktrdr.settings import load_settings

    settings = load_settings(**overrides)
    verbose = context.find_root().obj or 0
    if is_service:
        configure_logging("debug" if verbose else settings.log_level, settings.log_format)
    elif verbose:
        configure_logging("debug" if verbose > 1 else "info", settings.log_format)
    else:
        configure_logging("error", settings.log_format)
    return settings
