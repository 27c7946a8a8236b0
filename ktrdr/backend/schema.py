"""The schema of the operations database, brought up to date when a process starts."""

from pathlib import Path

from sqlalchemy import Connection, inspect, text

from ktrdr.backend.database import Database
from ktrdr.errors import StoreError

HEAD = "0004"
"""The newest revision in `migrations/versions`."""
_MIGRATIONS = Path(__file__).parent / "migrations"


def ensure_schema(database: Database) -> None:
    """Create or upgrade the tables if need be; safe in several processes at once.

    A database that is up to date costs one query: Alembic, 0.3 s to import, is not.

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
        if revision != HEAD:
            _upgrade(connection, revision, database.name)


def _revision(connection: Connection) -> str | None:
    if not inspect(connection).has_table("alembic_version"):
        return None
    return connection.execute(text("SELECT version_num FROM alembic_version")).scalar_one_or_none()


def _upgrade(connection: Connection, revision: str | None, name: str) -> None:
    from alembic import command
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    config = Config()
    # A percent sign in the path would be read as an interpolation.
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    if revision is not None and revision not in known:
        raise StoreError(
            f"The database {name} has the schema '{revision}', which this version of ktrdr does not know.",
            fix="Upgrade ktrdr, or set KTRDR_HOME to another directory.",
        )
    config.attributes["connection"] = connection
    command.upgrade(config, HEAD)
