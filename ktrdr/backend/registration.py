"""Being one of the backend processes that share a database, and ceasing to be."""

import asyncio
import os
import socket

import structlog
from sqlalchemy import Connection, delete, insert, update

import ktrdr
from ktrdr.backend import dispatching
from ktrdr.backend.instances import BROKER_INSTANCE, InstanceLock
from ktrdr.backend.store import OperationStore
from ktrdr.backend.tables import instances
from ktrdr.backend.waiting import Offload
from ktrdr.backend.work import Work
from ktrdr.errors import KtrdrError

_log = structlog.get_logger()


class Registration:
    """One instance, from when it enters until it leaves, or its process ends.

    Args:
        store: the database that is shared.
        instance: the name.
        offload: runs what blocks.
    """

    def __init__(self, store: OperationStore, instance: str, *, offload: Offload) -> None:
        self._store = store
        self._instance = instance
        self._offload = offload
        self._entering = asyncio.Lock()
        self._lock: InstanceLock | None = None
        self._hold: Connection | None = None

    async def enter(self) -> None:
        """Be the instance, if this is not so already.

        Raises:
            StoreError: it is `BROKER_INSTANCE`, and another process is that.
            DatabaseUnavailableError: the database, or the directory of instances, cannot be written.
            StorageFullError: a disk is full.
        """
        async with self._entering:
            if self._lock is None:
                await self._offload(self._enter)

    async def leave(self) -> None:
        """Cease to be it; what it carried is free for others, unless it goes over a broker."""
        if self._lock is None:
            return
        try:
            await self._offload(lambda: self._store.change(self._record_end))
        except KtrdrError as error:
            # Others find out by the lock that is free.
            _log.warning("operations not released", error=str(error))
        self._let_go()
        self._lock.release()
        self._lock = None

    def is_at_work(self, instance: str) -> bool:
        """Return whether an instance may be writing; asked before this one does."""
        # What has the broker's name is then of one that died: there is no other while we are it.
        is_predecessor = instance == self._instance == BROKER_INSTANCE
        return not is_predecessor and self._store.instances.is_alive(instance)

    def _enter(self) -> None:
        lock = self._store.instances.register(self._instance)
        try:
            if self._instance == BROKER_INSTANCE:
                self._hold = self._store.hold()
            self._store.change(self._record_begin)
        except BaseException:
            self._let_go()
            lock.release()
            raise
        self._lock = lock

    def _let_go(self) -> None:
        if self._hold is not None:
            # Not back to the others, with what it holds.
            self._hold.invalidate()
            self._hold.close()
            self._hold = None

    def _record_begin(self, work: Work) -> None:
        work.connection.execute(delete(instances).where(instances.c.id == self._instance))
        work.connection.execute(
            insert(instances).values(
                id=self._instance,
                host=socket.gethostname(),
                pid=os.getpid(),
                program_version=ktrdr.__version__,
                started_at=work.now,
            )
        )

    def _record_end(self, work: Work) -> None:
        if self._instance != BROKER_INSTANCE:
            dispatching.release(work, self._instance)
        work.connection.execute(
            update(instances).where(instances.c.id == self._instance).values(stopped_at=work.now)
        )
