"""Connections to the operations database; the one place that knows which engine it is."""

import shutil
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Connection, Engine, create_engine, event, text
from sqlalchemy.engine import URL
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import ArgumentError, DBAPIError, IntegrityError, NoSuchModuleError
from sqlalchemy.pool import ConnectionPoolEntry, PoolProxiedConnection

from ktrdr.backend.database_url import parse_url, sqlite_file
from ktrdr.errors import (
    DatabaseUnavailableError,
    KtrdrError,
    SettingsError,
    StorageFullError,
    StoreError,
)

_FULL_BELOW_BYTES = 1024 * 1024
_POLL_OTHER_ENGINES_S = 1.0
_SCHEMA_LOCK = 0x6B74726472  # "ktrdr": any constant that no other program uses
_HOLD = _SCHEMA_LOCK + 1
_HELD = text(
    "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND classid = :high AND objid = :low"
    " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
)


class Database:
    """Read and write transactions on one database; may be used from any thread.

    Args:
        url: a SQLAlchemy URL.
        create: whether a SQLite file that is missing is made.
        busy_timeout_s: how long to wait for another process's transaction.

    Raises:
        SettingsError: the URL cannot be used.
        DatabaseUnavailableError: the file is missing and must not be made.
    """

    def __init__(self, url: str, *, create: bool = True, busy_timeout_s: float = 10.0) -> None:
        parsed = parse_url(url)
        self.name = parsed.render_as_string(hide_password=True)
        self._sqlite = parsed.get_backend_name() == "sqlite"
        self._busy_timeout_s = busy_timeout_s
        self._path = sqlite_file(parsed, create=create) if self._sqlite else None
        # SQLite has one writer at a time: waiting here is woken at once, waiting in SQLite polls.
        self._writing = threading.Lock()
        self._engine = self._make_engine(parsed)
        self._write_engine = self._engine.execution_options(ktrdr_writes=True)

    def _make_engine(self, url: URL) -> Engine:
        try:
            if not self._sqlite:
                return create_engine(url, pool_pre_ping=True)
            engine = create_engine(url, connect_args={"timeout": self._busy_timeout_s})
        except (NoSuchModuleError, ModuleNotFoundError, ArgumentError) as error:
            raise SettingsError(
                f"The database URL {self.name} cannot be used: {error}.",
                fix="Install the driver that it names, or correct KTRDR_DATABASE_URL.",
            ) from error
        event.listen(engine, "connect", self._set_up_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
        return engine

    def _set_up_sqlite(self, connection: DBAPIConnection, _record: ConnectionPoolEntry) -> None:
        # The driver must not begin transactions by its own rules; `_begin_sqlite` does.
        connection.isolation_level = None
        cursor = connection.cursor()
        cursor.execute("PRAGMA foreign_keys = ON")
        # In WAL mode anything less could lose the last commits on a power failure.
        cursor.execute("PRAGMA synchronous = FULL")
        deadline = time.monotonic() + self._busy_timeout_s
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

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A transaction that sees one state of the database.

        Raises:
            DatabaseUnavailableError: it is locked, unreadable or away.
        """
        with self._translated(), self._engine.begin() as connection:
            yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """A transaction that commits at the end of the block and is durable then; rolls back on any error.

        Raises:
            DatabaseUnavailableError: it is locked for too long, read-only, damaged or away.
            StorageFullError: its disk is full.
        """
        with self._translated():
            if not self._sqlite:
                with self._write_engine.begin() as connection:
                    yield connection
                return
            if not self._writing.acquire(timeout=self._busy_timeout_s):
                raise self._locked()
            try:
                with self._write_engine.begin() as connection:
                    yield connection
            finally:
                self._writing.release()

    @contextmanager
    def upgrading(self) -> Iterator[Connection]:
        """A transaction during which no other process upgrades the schema."""
        with self.write() as connection:
            # On SQLite the write transaction itself is that lock.
            if connection.dialect.name == "postgresql":
                connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _SCHEMA_LOCK})
            yield connection

    def hold(self) -> Connection | None:
        """Return a connection by which one process at a time holds the database, until it closes it.

        On SQLite there is none: processes on one machine have lock files.

        Raises:
            StoreError: another process holds it, perhaps on another machine.
            DatabaseUnavailableError: the database is away.
        """
        if self._engine.dialect.name != "postgresql":
            return None
        with self._translated():
            connection = self._engine.connect().execution_options(isolation_level="AUTOCOMMIT")
            if connection.execute(text("SELECT pg_try_advisory_lock(:key)"), {"key": _HOLD}).scalar_one():
                return connection
            connection.close()
        raise StoreError(
            f"Another `ktrdr serve` carries the operations of the database {self.name}.",
            fix="Stop it first, or leave them to it.",
        )

    def is_held(self) -> bool:
        """Return whether a process, on any machine, is seen to `hold` the database."""
        if self._engine.dialect.name != "postgresql":
            return False
        # A key of 64 bits is listed as two halves.
        where = {"high": _HOLD >> 32, "low": _HOLD & 0xFFFFFFFF}
        with self.read() as connection:
            holders: int = connection.execute(_HELD, where).scalar_one()
        return holders > 0

    def watch_commits(self) -> "CommitWatch":
        """Return what tells whether anybody, in any process, has committed."""
        return CommitWatch(self)

    def close(self) -> None:
        """Close idle connections."""
        self._engine.dispose()

    def _locked(self) -> DatabaseUnavailableError:
        return DatabaseUnavailableError(
            f"The database {self.name} has been locked by another process for {self._busy_timeout_s:g} s.",
            fix="Find out which process holds it (lsof), or try again.",
        )

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except IntegrityError:
            raise
        except DBAPIError as error:
            raise self._error(error.orig) from error
        except sqlite3.Error as error:
            raise self._error(error) from error

    def _error(self, cause: BaseException | None) -> KtrdrError:
        code = getattr(cause, "sqlite_errorname", "") or ""
        if code == "SQLITE_FULL" or (code.startswith("SQLITE_IOERR") and self._disk_is_full()):
            return StorageFullError(
                f"The disk of the database {self.name} is full.",
                fix="Free some space; the work goes on then.",
            )
        if code.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
            return self._locked()
        if code.startswith("SQLITE_READONLY"):
            return DatabaseUnavailableError(
                f"The database {self.name} cannot be written.",
                fix="Make the file and its directory writable, or set KTRDR_HOME to a directory that is.",
            )
        if code.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB")):
            return DatabaseUnavailableError(
                f"The database {self.name} is damaged: {cause}.",
                fix="Move the file away or restore a backup; the models on disk do not depend on it.",
            )
        if code.startswith("SQLITE_CANTOPEN"):
            return DatabaseUnavailableError(
                f"The database {self.name} cannot be opened.",
                fix="Check that its directory exists and is yours, or set KTRDR_HOME to another.",
            )
        return DatabaseUnavailableError(f"The database {self.name} does not answer: {cause}.")

    def _disk_is_full(self) -> bool:
        return self._path is not None and shutil.disk_usage(self._path.parent).free < _FULL_BELOW_BYTES


class CommitWatch:
    """Tells cheaply whether anybody may have committed since it was last asked."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._using = threading.Lock()
        self._connection: PoolProxiedConnection | None = None
        self._seen: object = None
        self._closed = False

    def changed(self) -> bool:
        """Return whether the database may differ from what it was at the last call; True at the first.

        On SQLite this costs microseconds; on other engines it is True once a second.

        Raises:
            DatabaseUnavailableError: the database cannot be asked.
        """
        with self._using:
            if self._closed:
                return False
            seen = self._read()
            changed, self._seen = seen != self._seen, seen
            return changed

    def close(self) -> None:
        """Release its connection; a call that is under way in another thread ends first."""
        with self._using:
            self._closed = True
            if self._connection is not None:
                # Not back to the others, which wait for locks.
                self._connection.invalidate()
                self._connection = None

    def _read(self) -> object:
        if not self._database._sqlite:
            return time.monotonic() // _POLL_OTHER_ENGINES_S
        with self._database._translated():
            if self._connection is None:
                self._connection = self._database._engine.raw_connection()
                # Asked from event loops, it must not wait.
                self._connection.cursor().execute("PRAGMA busy_timeout = 0")
            # Without a transaction, which would see no change.
            return self._connection.cursor().execute("PRAGMA data_version").fetchone()[0]


def _begin_sqlite(connection: Connection) -> None:
    # A writer that begins deferred and upgrades later can fail without waiting.
    writes = connection.get_execution_options().get("ktrdr_writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
