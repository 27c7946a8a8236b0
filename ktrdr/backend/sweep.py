"""What must happen though nobody says anything: leases expire, requests are overdue, processes die."""

from collections.abc import Callable
from functools import partial

import structlog
from sqlalchemy import select

from ktrdr.backend import attempts, dispatching
from ktrdr.backend.leases import Lease, Leases, Request
from ktrdr.backend.records import OperationRecord
from ktrdr.backend.store import OperationStore
from ktrdr.backend.tables import outbox
from ktrdr.backend.waiting import Offload
from ktrdr.backend.work import Work
from ktrdr.clock import Clock
from ktrdr.errors import DatabaseUnavailableError, StorageFullError

_log = structlog.get_logger()

TAKEOVER_GRACE_S = 5.0
"""An agent that adopts a dead one's claims reports them at once; after so long nobody has."""


class Sweep:
    """Looks after the operations of one instance, and after those that dead instances have left.

    Args:
        store: where operations are.
        leases: what this instance waits for.
        instance: itself.
        retries: what follows an attempt that was given up.
        interval_s: between two sweeps.
        clock: for intervals.
        offload: where the database is asked.
        last_idle: when every queue was last seen empty, in monotonic seconds.
        on_change: told of each operation that changed.
    """

    def __init__(
        self,
        store: OperationStore,
        leases: Leases,
        *,
        instance: str,
        retries: attempts.RetryPolicy,
        interval_s: float,
        clock: Clock,
        offload: Offload,
        last_idle: Callable[[], float],
        on_change: Callable[[OperationRecord], None],
    ) -> None:
        self._store = store
        self._leases = leases
        self._instance = instance
        self._retries = retries
        self._interval_s = interval_s
        self._clock = clock
        self._offload = offload
        self._last_idle = last_idle
        self._on_change = on_change

    async def run(self) -> None:
        """Sweep for ever."""
        while True:
            await self._clock.sleep(self._interval_s)
            try:
                await self.expire()
                await self.adopt()
            except (DatabaseUnavailableError, StorageFullError) as error:
                _log.warning("sweep waits", reason=str(error))

    async def expire(self) -> None:
        """Give up attempts whose claim is silent, and dispatch again what nobody has accepted."""
        for lease in self._leases.expired(self._last_idle()):
            await self._change(partial(self._expire, lease))
        for request in self._leases.overdue():
            await self._change(partial(self._dispatch_again, request))

    async def adopt(self) -> None:
        """Take over what nobody alive carries."""
        for operation in await self._offload(self._abandoned):
            taken = await self._offload(partial(self._take_over, operation))
            if taken is not None:
                self.taken_over(taken)
        await self._offload(self._forget_dead_mail)

    def taken_over(self, operation: OperationRecord) -> None:
        """Wait for what was taken over: not for a whole lease, since its runner died with its process."""
        self._leases.follow(operation, first_s=TAKEOVER_GRACE_S)
        self._on_change(operation)

    def _abandoned(self) -> list[OperationRecord]:
        return [
            operation
            for operation in self._store.unfinished()
            if operation.owner != self._instance and self._store.is_interrupted(operation)
        ]

    def _take_over(self, abandoned: OperationRecord) -> OperationRecord | None:
        def action(work: Work) -> OperationRecord | None:
            operation = work.operation(abandoned.operation_id)
            if operation is None or operation.revision != abandoned.revision:
                return None  # another process was faster
            return dispatching.take_over(work, operation, self._instance)

        return self._store.change(action, instance=self._instance)

    def _forget_dead_mail(self) -> None:
        query = select(outbox.c.owner).where(outbox.c.sent_at.is_(None)).distinct()
        with self._store.reading() as connection:
            owners = [owner for owner in connection.execute(query).scalars() if owner != self._instance]
        for owner in owners:
            if not self._store.instances.is_alive(owner):
                self._store.change(partial(dispatching.forget_unsent, instance=owner))

    def _expire(self, lease: Lease, work: Work) -> OperationRecord | None:
        silent = f"nothing was heard of {lease.claim_id} for {lease.lease_s:g} s"
        return attempts.lease_expired(
            work, lease.operation_id, lease.attempt, lease.claim_id, silent, self._retries
        )

    def _dispatch_again(self, request: Request, work: Work) -> OperationRecord | None:
        return dispatching.not_accepted(work, request.operation_id, request.attempt, request.within_s)

    async def _change(self, action: Callable[[Work], OperationRecord | None]) -> None:
        changed = await self._offload(lambda: self._store.change(action, instance=self._instance))
        if changed is not None:
            self._on_change(changed)
