"""Noticing what other processes commit."""

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager

from sqlalchemy import Engine
from sqlalchemy.pool import PoolProxiedConnection

_SQLITE = "PRAGMA data_version"
_POSTGRESQL = "SELECT pg_current_snapshot()::text"


class CommitWatch:
    """Tells cheaply whether anybody may have committed since it was last asked.

    Args:
        engine: of the database.
        translated: turns the driver's errors into those of this program.
    """

    def __init__(self, engine: Engine, translated: Callable[[], AbstractContextManager[None]]) -> None:
        self._engine = engine
        self._translated = translated
        self._using = threading.Lock()
        self._connection: PoolProxiedConnection | None = None
        self._seen: object = None
        self._closed = False

    @property
    def is_instant(self) -> bool:
        """Whether asking, once it was asked, takes microseconds: there is no server that may be away."""
        return self._engine.dialect.name == "sqlite"

    def changed(self) -> bool:
        """Return whether the database may differ from what it was at the last call; True at the first.

        Raises:
            DatabaseUnavailableError: the database cannot be asked.
        """
        with self._using:
            if self._closed:
                return False
            try:
                with self._translated():
                    seen = self._read()
            except BaseException:
                self._disconnect()
                raise
            changed, self._seen = seen != self._seen, seen
            return changed

    def close(self) -> None:
        """Release its connection; a call that is under way in another thread ends first."""
        with self._using:
            self._closed = True
            self._disconnect()

    def _disconnect(self) -> None:
        if self._connection is not None:
            # Not back to the others, which wait for locks and have transactions.
            self._connection.invalidate()
            self._connection = None

    def _read(self) -> object:
        if self._connection is None:
            self._connection = self._connect()
        cursor = self._connection.cursor()
        cursor.execute(_SQLITE if self.is_instant else _POSTGRESQL)
        (seen,) = cursor.fetchall()
        cursor.close()
        return seen[0]

    def _connect(self) -> PoolProxiedConnection:
        connection = self._engine.raw_connection()
        if self.is_instant:
            # Asked from event loops, it must not wait.
            connection.cursor().execute("PRAGMA busy_timeout = 0")
        else:
            # In a transaction it would see no change.
            assert connection.dbapi_connection is not None
            self._engine.dialect.set_isolation_level(connection.dbapi_connection, "AUTOCOMMIT")
        return connection
