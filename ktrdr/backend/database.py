"""Connections to the operations database, whichever engine it has."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import BigInteger, Connection, Engine, bindparam, text
from sqlalchemy.engine import URL
from sqlalchemy.exc import ArgumentError, DBAPIError, IntegrityError, NoSuchModuleError

from ktrdr.backend.commit_watch import CommitWatch
from ktrdr.backend.conflicts import ConflictError
from ktrdr.backend.database_url import is_sqlite, parse_url, shown, sqlite_file
from ktrdr.backend.postgresql import is_locked, postgresql_engine, postgresql_error
from ktrdr.backend.sqlite import WRITES, sqlite_engine, sqlite_error, sqlite_locked
from ktrdr.errors import SettingsError

_SCHEMA_LOCK = 0x6B74726472  # "ktrdr": any constant that no other program uses
_LOCK_SCHEMA = text("SELECT pg_advisory_xact_lock(:key)").bindparams(bindparam("key", type_=BigInteger))
# Before a server looks for transactions that wait for each other, it waits for a second.
_BE_IMPATIENT = text("SET LOCAL lock_timeout = '50ms'")
_HOLD = text("SELECT pg_try_advisory_lock(:key)").bindparams(bindparam("key", type_=BigInteger))


class Database:
    """Read and write transactions on one database; may be used from any thread.

    Args:
        url: a SQLAlchemy URL, of SQLite or PostgreSQL.
        create: whether a SQLite file that is missing is made.
        busy_timeout_s: how long to wait for another process's transaction.

    Raises:
        SettingsError: the URL cannot be used.
        DatabaseUnavailableError: the file is missing and must not be made.
    """

    def __init__(self, url: str, *, create: bool = True, busy_timeout_s: float = 10.0) -> None:
        parsed = parse_url(url)
        self.name = shown(parsed)
        self.path = sqlite_file(parsed, create=create) if is_sqlite(parsed) else None
        """The file, if it is one of SQLite."""
        self._busy_timeout_s = busy_timeout_s
        # SQLite has one writer at a time: waiting here is woken at once, waiting in SQLite polls.
        self._writing = threading.Lock()
        self._engine = self._make_engine(parsed)
        if self.path is not None:
            self._read_engine = self._look_up_engine = self._engine
        else:
            # By default each statement would see another state.
            self._read_engine = self._engine.execution_options(
                isolation_level="REPEATABLE READ", postgresql_readonly=True
            )
            # To begin and to end a transaction are a round trip each.
            self._look_up_engine = self._engine.execution_options(isolation_level="AUTOCOMMIT")
        self._write_engine = self._engine.execution_options(**{WRITES: True})
        assert self._engine.dialect.dbapi is not None
        self._driver_error: type[Exception] = self._engine.dialect.dbapi.Error

    def _make_engine(self, url: URL) -> Engine:
        make = sqlite_engine if self.path is not None else postgresql_engine
        try:
            return make(url, busy_timeout_s=self._busy_timeout_s)
        except (NoSuchModuleError, ModuleNotFoundError, ArgumentError) as error:
            raise SettingsError(
                f"The database URL {self.name} cannot be used: {error}.",
                fix="Install the driver: pip install 'ktrdr[postgres]'; or correct KTRDR_DATABASE_URL.",
            ) from error

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A transaction that sees one state of the database.

        Raises:
            DatabaseUnavailableError: it is locked, unreadable or away.
        """
        with self._translated(), self._read_engine.begin() as connection:
            yield connection

    @contextmanager
    def look_up(self) -> Iterator[Connection]:
        """A connection for queries each of which may see another state; raises as `read` does."""
        with self._translated(), self._look_up_engine.begin() as connection:
            yield connection

    @contextmanager
    def write(self, *, patient: bool = True) -> Iterator[Connection]:
        """A transaction that commits at the end of the block and is durable then; rolls back on any error.

        Args:
            patient: False: rows on a server that another transaction has are a conflict soon.

        Raises:
            ConflictError: another transaction was in the way; this one is to be repeated.
            DatabaseUnavailableError: it is locked for too long, read-only, damaged or away.
            StorageFullError: its disk is full.
        """
        with self._translated():
            if self.path is None:
                with self._write_engine.begin() as connection, self._impatient(connection, patient):
                    yield connection
                return
            if not self._writing.acquire(timeout=self._busy_timeout_s):
                raise sqlite_locked(self.name, self._busy_timeout_s)
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
            if self.path is None:
                connection.execute(_LOCK_SCHEMA, {"key": _SCHEMA_LOCK})
            yield connection

    def hold(self, key: int) -> Connection | None:
        """Return a connection to a server by which one process at a time holds a key of 64 bits.

        None: another process holds it, perhaps on another machine. It is held until the connection ends.

        Raises:
            DatabaseUnavailableError: the database is away.
        """
        with self._translated():
            connection = self._engine.connect().execution_options(isolation_level="AUTOCOMMIT")
            if connection.execute(_HOLD, {"key": key}).scalar_one():
                return connection
            connection.close()
        return None

    def watch_commits(self) -> CommitWatch:
        """Return what tells whether anybody, in any process, has committed."""
        return CommitWatch(self._engine, self._translated)

    def close(self) -> None:
        """Close idle connections."""
        self._engine.dispose()

    @contextmanager
    def _impatient(self, connection: Connection, patient: bool) -> Iterator[None]:
        if patient:
            yield
            return
        connection.execute(_BE_IMPATIENT)
        try:
            yield
        except DBAPIError as error:
            if is_locked(error.orig):
                raise ConflictError("another transaction has what this one needs") from error
            raise

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except IntegrityError:
            raise
        except DBAPIError as error:
            raise self._error(error.orig) from error
        except self._driver_error as error:
            raise self._error(error) from error

    def _error(self, cause: BaseException | None) -> Exception:
        if self.path is not None:
            return sqlite_error(cause, self.name, self.path, self._busy_timeout_s)
        return postgresql_error(cause, self.name, self._busy_timeout_s)
