"""Settings and logging as a command wants them."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from ktrdr.settings import Settings

DataOption = Annotated[
    Path | None, typer.Option("--data", help="Directory of bars, SYMBOL_TIMEFRAME.csv or .parquet.")
]


def settings_for(context: typer.Context, *, data: Path | None = None) -> "Settings":
    """Return the settings, with logging set up as ``-v`` says; quiet by default, as commands show their own.

    Raises:
        SettingsError: a variable is wrong.
    """
    from ktrdr.logs import configure_logging
    from ktrdr.settings import load_settings

    settings = load_settings(data_dir=data)
    verbose = context.find_root().obj or 0
    if verbose:
        configure_logging("debug" if verbose > 1 else "info", settings.log_format)
    else:
        configure_logging("error", settings.log_format)
    return settings
