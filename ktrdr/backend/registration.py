"""Being one of the backend processes that share a database, and ceasing to be."""

import asyncio
import os
import socket

import structlog
from sqlalchemy import delete, insert, update

import ktrdr
from ktrdr.backend import dispatching
from ktrdr.backend.instances import Lock
from ktrdr.backend.store import OperationStore
from ktrdr.backend.tables import instances
from ktrdr.backend.waiting import Offload
from ktrdr.backend.work import Work
from ktrdr.clock import Clock
from ktrdr.errors import DatabaseUnavailableError, KtrdrError

_log = structlog.get_logger()

_RENEW_EVERY_S = 5.0


class Registration:
    """One instance, from when it enters until it leaves, or its process ends.

    Args:
        store: the database that is shared.
        instance: the name, which no other process has.
        owner: whose operations it carries: its own, or those that it shares with others.
        clock: for intervals.
        offload: runs what blocks.
    """

    def __init__(
        self, store: OperationStore, instance: str, *, owner: str, clock: Clock, offload: Offload
    ) -> None:
        self._store = store
        self._instance = instance
        self._owner = owner
        self._clock = clock
        self._offload = offload
        self._entering = asyncio.Lock()
        self._lock: Lock | None = None

    async def enter(self) -> None:
        """Be the instance, if this is not so already.

        Raises:
            DatabaseUnavailableError: the database, or the directory of instances, cannot be written.
            StorageFullError: a disk is full.
        """
        async with self._entering:
            if self._lock is None:
                await self._offload(self._enter)

    async def leave(self) -> None:
        """Cease to be it; what it carried is free for others, and what it was to publish."""
        if self._lock is None:
            return
        try:
            await self._offload(lambda: self._store.change(self._record_end))
        except KtrdrError as error:
            # Others find out by the lock that is free.
            _log.warning("operations not released", error=str(error))
        self._lock.release()
        self._lock = None

    async def run(self) -> None:
        """Stay it, for ever."""
        while True:
            await self._clock.sleep(_RENEW_EVERY_S)
            if self._lock is not None:
                try:
                    await self._offload(self._lock.renew)
                except DatabaseUnavailableError as error:
                    _log.warning("others may take this process for dead", error=str(error))

    def _enter(self) -> None:
        lock = self._store.instances.register(self._instance)
        try:
            self._store.change(self._record_begin)
        except BaseException:
            lock.release()
            raise
        self._lock = lock

    def _record_begin(self, work: Work) -> None:
        work.connection.execute(delete(instances).where(instances.c.id == self._instance))
        work.connection.execute(
            insert(instances).values(
                id=self._instance,
                owner=self._owner,
                host=socket.gethostname(),
                pid=os.getpid(),
                program_version=ktrdr.__version__,
                started_at=work.now,
            )
        )

    def _record_end(self, work: Work) -> None:
        if self._owner == self._instance:
            dispatching.release(work, self._instance)
        else:
            dispatching.free_claims(work, self._instance)
        work.connection.execute(
            update(instances).where(instances.c.id == self._instance).values(stopped_at=work.now)
        )
