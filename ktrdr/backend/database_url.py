"""Which database a URL names, and whether it can be used."""

from pathlib import Path

from sqlalchemy import make_url
from sqlalchemy.engine import URL
from sqlalchemy.exc import ArgumentError

from ktrdr.errors import DatabaseUnavailableError, SettingsError


def parse_url(url: str) -> URL:
    """Return what the URL says.

    Raises:
        SettingsError: it is none.
    """
    try:
        return make_url(url)
    except ArgumentError as error:
        raise SettingsError(
            "The database URL cannot be read.",
            fix="Set KTRDR_DATABASE_URL to something like sqlite:////path/to/ktrdr.db.",
        ) from error


def sqlite_file(url: URL, *, create: bool) -> Path:
    """Return the file of a SQLite database, its directory made.

    Raises:
        SettingsError: there is none: it would be in memory.
        DatabaseUnavailableError: it is missing and not to be made, or its directory cannot be.
    """
    if not url.database or url.database == ":memory:" or url.query.get("mode") == "memory":
        raise SettingsError(
            "An in-memory database ends with the process, and every operation with it.",
            fix="Name a file: sqlite:////path/to/ktrdr.db.",
        )
    path = Path(url.database.removeprefix("file:"))
    if not create and not path.exists():
        raise DatabaseUnavailableError(
            f"There is no operations database at {path}.",
            fix="Train something first, or set KTRDR_HOME to where it was trained.",
        )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DatabaseUnavailableError(
            f"The directory {path.parent} cannot be made: {error.strerror}.",
            fix="Set KTRDR_HOME to a directory that is yours.",
        ) from error
    return path
