"""What a database holds and how far its schema is, without changing anything."""

from dataclasses import dataclass

from sqlalchemy import Connection, func, select, text

from ktrdr.backend.database import Database
from ktrdr.backend.schema import SchemaStatus, schema_status
from ktrdr.backend.servers import Server
from ktrdr.backend.store import OperationStore, registry_of
from ktrdr.backend.tables import models, operations
from ktrdr.settings import Settings


@dataclass(frozen=True, slots=True)
class DatabaseStatus:
    """A database as it is now."""

    name: str
    """Its URL, without a password."""
    engine: str
    """Name and version."""
    size_bytes: int
    schema: SchemaStatus
    operations: dict[str, int]
    """How many are in each state that occurs."""
    models: int
    servers: list[Server]
    """Each ``ktrdr serve`` that is seen to carry what goes over the broker."""


def database_status(settings: Settings) -> DatabaseStatus:
    """Return what the database that the settings name holds; makes none.

    Raises:
        SettingsError: the URL cannot be used.
        DatabaseUnavailableError: it is missing, unreadable or away.
        StoreError: it was made by a newer version of this program.
    """
    database = Database(settings.database, create=False)
    try:
        schema = schema_status(database)
        with database.read() as connection:
            engine = _engine(connection)
            size = _size(database, connection)
            counts, versions = _counts(connection) if schema.revision is not None else ({}, 0)
        store = OperationStore(database, registry_of(database, settings))
        servers = store.servers() if schema.is_current else []
    finally:
        database.close()
    return DatabaseStatus(database.name, engine, size, schema, counts, versions, servers)


def _engine(connection: Connection) -> str:
    name = {"sqlite": "SQLite", "postgresql": "PostgreSQL"}[connection.dialect.name]
    return f"{name} {'.'.join(map(str, connection.dialect.server_version_info or ()))}"


def _size(database: Database, connection: Connection) -> int:
    if database.path is not None:
        with_log = (database.path, database.path.with_name(f"{database.path.name}-wal"))
        return sum(path.stat().st_size for path in with_log if path.exists())
    size: int = connection.execute(text("SELECT pg_database_size(current_database())")).scalar_one()
    return size


def _counts(connection: Connection) -> tuple[dict[str, int], int]:
    state = operations.c.state
    by_state = select(state, func.count()).group_by(state).order_by(state)
    counts = {str(name): int(count) for name, count in connection.execute(by_state)}
    versions: int = connection.execute(select(func.count()).select_from(models)).scalar_one()
    return counts, versions
