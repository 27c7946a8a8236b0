"""The schema of the operations database, brought up to date when a process starts."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import Connection, inspect, text

from ktrdr.backend.database import Database
from ktrdr.backend.tables import metadata
from ktrdr.errors import StoreError

if TYPE_CHECKING:
    from alembic.config import Config

HEAD = "0010"
"""The newest revision in `migrations/versions`."""
_MIGRATIONS = Path(__file__).parent / "migrations"


def ensure_schema(database: Database) -> None:
    """Create or upgrade the tables if need be; safe in several processes at once.

    A database that is up to date costs one query, and an empty one the making of its tables: only what was
    made by an older version needs Alembic, 0.3 s to import.

    Raises:
        StoreError: the database was made by a newer version of this program.
        DatabaseUnavailableError: it cannot be read, or not be written and needs an upgrade.
    """
    with database.read() as connection:
        if _revision(connection) == HEAD:
            return
    with database.upgrading() as connection:
        # Another process may have been first.
        revision = _revision(connection)
        if revision is None:
            _create(connection)
        elif revision != HEAD:
            _upgrade(connection, revision, database.name)


@dataclass(frozen=True, slots=True)
class SchemaStatus:
    """Which revision a database has, and which are to come."""

    revision: str | None
    """None if there are no tables yet."""
    pending: tuple[str, ...]
    """Revisions that an upgrade applies, in their order."""

    @property
    def is_current(self) -> bool:
        """Whether there is nothing to upgrade."""
        return self.revision == HEAD


def schema_status(database: Database) -> SchemaStatus:
    """Return how far the schema of a database is; changes nothing.

    Raises:
        StoreError: the database was made by a newer version of this program.
        DatabaseUnavailableError: it cannot be read.
    """
    with database.read() as connection:
        revision = _revision(connection)
    known = known_revisions()
    _check_known(revision, known, database.name)
    done = known.index(revision) + 1 if revision is not None else 0
    return SchemaStatus(revision, tuple(known[done:]))


def known_revisions() -> list[str]:
    """Return the revisions that this version of the program knows, oldest first."""
    from alembic.script import ScriptDirectory

    scripts = ScriptDirectory.from_config(_config()).walk_revisions()
    return [script.revision for script in scripts][::-1]


def _revision(connection: Connection) -> str | None:
    if not inspect(connection).has_table("alembic_version"):
        return None
    return connection.execute(text("SELECT version_num FROM alembic_version")).scalar_one_or_none()


def _create(connection: Connection) -> None:
    metadata.create_all(connection, checkfirst=False)
    connection.execute(
        text(
            "CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL,"
            " CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num))"
        )
    )
    connection.execute(text("INSERT INTO alembic_version VALUES (:head)"), {"head": HEAD})


def _upgrade(connection: Connection, revision: str, name: str) -> None:
    from alembic import command

    _check_known(revision, known_revisions(), name)
    config = _config()
    config.attributes["connection"] = connection
    command.upgrade(config, HEAD)


def _check_known(revision: str | None, known: list[str], name: str) -> None:
    if revision is not None and revision not in known:
        raise StoreError(
            f"The database {name} has the schema '{revision}', which this version of ktrdr does not know.",
            fix="Upgrade ktrdr, or set KTRDR_HOME to another directory.",
        )


def _config() -> "Config":
    from alembic.config import Config

    config = Config()
    # A percent sign in the path would be read as an interpolation.
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config
