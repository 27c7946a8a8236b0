"""Which backend processes are alive, on any machine, by locks on the database server.

The server frees the locks of a connection that ends, however that was. One that is cut off without a word it
gives up after a minute (see the keepalives in `postgresql`).
"""

import hashlib
import threading
import time

import structlog
from sqlalchemy import BigInteger, Connection, bindparam, text
from sqlalchemy.exc import DBAPIError

from ktrdr.backend.database import Database
from ktrdr.backend.instances import BROKER_OWNER
from ktrdr.errors import DatabaseUnavailableError, StoreError

_log = structlog.get_logger()

RESTART_GRACE_S = 30.0
"""A server that was restarted has lost all locks; so long their holders have to take them again."""
_LOCK_TRIES = 100
_LOCK_PAUSE_S = 0.02
_KEY = bindparam("key", type_=BigInteger)
_IS_ALIVE = text(
    "SELECT count(*) > 0 FROM pg_locks WHERE locktype = 'advisory' AND objsubid = 1"
    " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
    " AND ((classid::bigint << 32) | objid::bigint) = :key"
).bindparams(_KEY)
_UP_FOR_S = text("SELECT extract(epoch FROM now() - pg_postmaster_start_time())")


class ServerInstances:
    """The backend processes that share a database on a server.

    Args:
        database: on a server of PostgreSQL.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def register(self, instance: str) -> "ServerLock":
        """Say that this process is the instance, until it releases the lock or ends.

        Raises:
            StoreError: another process is it already, perhaps on another machine.
            DatabaseUnavailableError: the database is away.
        """
        lock = ServerLock(self, instance)
        if not lock.take():
            raise StoreError(f"Another process is the instance {instance} of {self._database.name} already.")
        return lock

    def is_alive(self, instance: str) -> bool:
        """Return whether a process holds the lock of that instance."""
        with self._database.read() as connection:
            return bool(connection.execute(_IS_ALIVE, {"key": _key(instance)}).scalar_one())

    def is_gone(self, instance: str) -> bool:
        """Return whether what the instance carries is free for others to take over."""
        if instance == BROKER_OWNER or self.is_alive(instance):
            return False
        with self._database.read() as connection:
            return float(connection.execute(_UP_FOR_S).scalar_one()) >= RESTART_GRACE_S

    def remove_stale(self) -> list[str]:
        """Return none: nothing is left of the dead."""
        return []

    def lock(self, instance: str) -> Connection | None:
        """Return a connection that holds the lock of an instance; None if another has it."""
        # Of a connection that ended just now, the server may not know yet.
        for _ in range(_LOCK_TRIES):
            connection = self._database.hold(_key(instance))
            if connection is not None:
                return connection
            time.sleep(_LOCK_PAUSE_S)
        return None


class ServerLock:
    """Held by a living instance, once it is taken."""

    def __init__(self, instances: ServerInstances, instance: str) -> None:
        self._instances = instances
        self._instance = instance
        self._using = threading.Lock()
        self._connection: Connection | None = None
        self._is_released = False

    def take(self) -> bool:
        """Return whether it is held now."""
        with self._using:
            return self._take()

    def renew(self) -> None:
        """Take the lock again, if a restart of the server or a cut has cost it.

        Raises:
            DatabaseUnavailableError: the database is away, or takes the connection that was cut for alive.
        """
        with self._using:
            if self._is_released or (self._connection is not None and _answers(self._connection)):
                return
            self._end()
            if not self._take():
                raise DatabaseUnavailableError("The server holds a lock for a connection that was cut.")
            _log.warning("lock on the database was lost, and is taken again", instance=self._instance)

    def release(self) -> None:
        """Say that the instance has ended."""
        with self._using:
            self._is_released = True
            self._end()

    def _take(self) -> bool:
        self._connection = self._instances.lock(self._instance)
        return self._connection is not None

    def _end(self) -> None:
        if self._connection is not None:
            # Not back to the others, with what it holds.
            self._connection.invalidate()
            self._connection.close()
            self._connection = None


def _answers(connection: Connection) -> bool:
    try:
        connection.execute(text("SELECT 1"))
    except DBAPIError:
        return False
    return True


def _key(instance: str) -> int:
    # Of 64 bits, with a sign.
    return int.from_bytes(hashlib.sha256(f"ktrdr {instance}".encode()).digest()[:8], signed=True)
