"""The operations database as a file of SQLite: connections, and what their errors mean."""

import shutil
import sqlite3
import time
from pathlib import Path

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import URL
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.pool import ConnectionPoolEntry

from ktrdr.errors import DatabaseUnavailableError, KtrdrError, StorageFullError

_FULL_BELOW_BYTES = 1024 * 1024
_CACHE_KIB = 512
WRITES = "ktrdr_writes"
"""The execution option of connections that will write."""


def sqlite_engine(url: URL, *, busy_timeout_s: float) -> Engine:
    """Return an engine whose transactions are durable when they are committed.

    Args:
        url: of a file.
        busy_timeout_s: how long to wait for another process's transaction.
    """

    def set_up(connection: DBAPIConnection, _record: ConnectionPoolEntry) -> None:
        # The driver must not begin transactions by its own rules; `_begin` does.
        connection.isolation_level = None
        cursor = connection.cursor()
        cursor.execute("PRAGMA foreign_keys = ON")
        # In WAL mode anything less could lose the last commits on a power failure.
        cursor.execute("PRAGMA synchronous = FULL")
        # Of each of up to fifteen connections: what is not in it, the operating system has.
        cursor.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
        deadline = time.monotonic() + busy_timeout_s
        while True:
            try:
                cursor.execute("PRAGMA journal_mode = WAL")
                break
            except sqlite3.OperationalError as error:
                # The switch, needed once per database, does not wait for other connections by itself.
                if error.sqlite_errorname != "SQLITE_BUSY" or time.monotonic() > deadline:
                    raise
                time.sleep(0.01)
        cursor.close()

    engine = create_engine(url, connect_args={"timeout": busy_timeout_s})
    event.listen(engine, "connect", set_up)
    event.listen(engine, "begin", _begin)
    return engine


def sqlite_locked(name: str, busy_timeout_s: float) -> DatabaseUnavailableError:
    """Return what to say of a database that could not be written in time."""
    return DatabaseUnavailableError(
        f"The database {name} has been locked by another process for {busy_timeout_s:g} s.",
        fix="Find out which process holds it (lsof), or try again.",
    )


def sqlite_error(cause: BaseException | None, name: str, path: Path, busy_timeout_s: float) -> KtrdrError:
    """Return what an error of the driver means.

    Args:
        cause: the driver's error.
        name: of the database, for people.
        path: its file.
        busy_timeout_s: as for `sqlite_engine`.
    """
    code = getattr(cause, "sqlite_errorname", "") or ""
    if code == "SQLITE_FULL" or (code.startswith("SQLITE_IOERR") and _disk_is_full(path)):
        return StorageFullError(
            f"The disk of the database {name} is full.",
            fix="Free some space; the work goes on then.",
        )
    if code.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
        return sqlite_locked(name, busy_timeout_s)
    if code.startswith("SQLITE_READONLY"):
        return DatabaseUnavailableError(
            f"The database {name} cannot be written.",
            fix="Make the file and its directory writable, or set KTRDR_HOME to a directory that is.",
        )
    if code.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB")):
        return DatabaseUnavailableError(
            f"The database {name} is damaged: {cause}.",
            fix="Move the file away or restore a backup; the models on disk do not depend on it.",
        )
    if code.startswith("SQLITE_CANTOPEN"):
        return DatabaseUnavailableError(
            f"The database {name} cannot be opened.",
            fix="Check that its directory exists and is yours, or set KTRDR_HOME to another.",
        )
    return DatabaseUnavailableError(f"The database {name} does not answer: {cause}.")


def _begin(connection: Connection) -> None:
    # A writer that begins deferred and upgrades later can fail without waiting.
    writes = connection.get_execution_options().get(WRITES, False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _disk_is_full(path: Path) -> bool:
    return shutil.disk_usage(path.parent).free < _FULL_BELOW_BYTES
