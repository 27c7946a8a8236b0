"""Which database a URL names, and whether it can be used."""

from pathlib import Path

from sqlalchemy import make_url
from sqlalchemy.engine import URL
from sqlalchemy.exc import ArgumentError

from ktrdr.errors import DatabaseUnavailableError, SettingsError

_SQLITE = "sqlite"
_POSTGRESQL = "postgresql"
_DRIVERS = {
    "sqlite": _SQLITE,
    "sqlite+pysqlite": _SQLITE,
    "postgres": "postgresql+psycopg",
    "postgresql": "postgresql+psycopg",
    "postgresql+psycopg": "postgresql+psycopg",
}
_SECRET_OPTIONS = ("password", "sslpassword")


def parse_url(url: str) -> URL:
    """Return what the URL says, with the driver that is used.

    Raises:
        SettingsError: it is none, or names an engine that is not supported.
    """
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        # What they say may hold a password.
        raise SettingsError(
            "The database URL cannot be read.",
            fix="Set KTRDR_DATABASE_URL to something like sqlite:////path/to/ktrdr.db or "
            "postgresql://user:password@host:5432/ktrdr.",
        ) from None
    driver = _DRIVERS.get(parsed.drivername)
    if driver is None:
        raise SettingsError(
            f"The database URL {shown(parsed)} cannot be used: '{parsed.drivername}' is not supported.",
            fix="Set KTRDR_DATABASE_URL to one that begins with sqlite:// or postgresql://.",
        )
    return parsed.set(drivername=driver)


def is_sqlite(url: URL) -> bool:
    """Return whether it names a file of SQLite, not a server of PostgreSQL."""
    return url.get_backend_name() == _SQLITE


def shown(url: URL) -> str:
    """Return the URL for people: without its passwords, wherever they are, and the name of our driver."""
    secrets = {name: "***" for name in _SECRET_OPTIONS if name in url.query}
    plain = url.set(drivername=url.get_backend_name()).update_query_dict(secrets)
    return plain.render_as_string(hide_password=True)


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
