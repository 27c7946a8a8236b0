"""What must happen though nobody says anything: leases expire, requests are overdue, processes die."""

from collections.abc import Awaitable, Callable
from functools import partial

import structlog
from sqlalchemy import select

from ktrdr.backend import attempts, dispatching, returning
from ktrdr.backend.away import Away
from ktrdr.backend.instances import BROKER_INSTANCE
from ktrdr.backend.leases import Lease, Leases, Request
from ktrdr.backend.records import OperationRecord
from ktrdr.backend.states import State
from ktrdr.backend.store import OperationStore
from ktrdr.backend.tables import operations, outbox
from ktrdr.backend.transactions import Transactions
from ktrdr.backend.waiting import Offload
from ktrdr.backend.work import Work
from ktrdr.clock import Clock
from ktrdr.errors import DatabaseUnavailableError, StorageFullError
from ktrdr.events import TrainingRequested

_log = structlog.get_logger()

TAKEOVER_GRACE_S = 5.0
"""An agent that adopts a dead one's claims reports them at once; after so long nobody has."""


class Sweep:
    """Looks after the operations of one instance, and after those that dead instances have left.

    Args:
        store: where operations are.
        transactions: where they are changed.
        leases: what this instance waits for.
        instance: itself.
        retries: what follows an attempt that was given up.
        interval_s: between two sweeps.
        clock: for intervals.
        offload: where the database is asked.
        last_idle: when every queue was last seen empty, in monotonic seconds.
        why_cut_off: asked before anything is given up: why nobody can be heard, if that is so.
        accept_deadline_s: how long a request that was published by a predecessor may wait.
        on_change: told of each operation that changed.
        is_listening: whether the bus is there, as far as is known without asking it.
    """

    def __init__(
        self,
        store: OperationStore,
        transactions: Transactions,
        leases: Leases,
        *,
        instance: str,
        retries: attempts.RetryPolicy,
        interval_s: float,
        clock: Clock,
        offload: Offload,
        last_idle: Callable[[], float],
        why_cut_off: Callable[[], Awaitable[str | None]],
        accept_deadline_s: float,
        on_change: Callable[[OperationRecord], None],
        is_listening: Callable[[], bool],
    ) -> None:
        self._store = store
        self._transactions = transactions
        self._leases = leases
        self._instance = instance
        self._retries = retries
        self._interval_s = interval_s
        self._clock = clock
        self._offload = offload
        self._last_idle = last_idle
        self._why_cut_off = why_cut_off
        self._accept_deadline_s = accept_deadline_s
        self._was_cut_off = False
        self._on_change = on_change
        self._away = None
        if retries.refuge is not None:
            self._away = Away(
                store,
                transactions,
                retries.refuge,
                is_away=lambda: self._was_cut_off or not is_listening(),
                after_s=accept_deadline_s,
                clock=clock,
                offload=offload,
                on_change=on_change,
            )

    async def begin(self) -> None:
        """Go on with what is this instance's to go on with: what it owned before, or what nobody carries."""
        if self._instance == BROKER_INSTANCE:
            await self._follow_own()
        else:
            await self.adopt()

    async def run(self) -> None:
        """Sweep for ever."""
        while True:
            await self._clock.sleep(self._interval_s)
            try:
                await self.expire()
                if self._away is not None:
                    await self._away.look()
                if self._instance == BROKER_INSTANCE:
                    # Cancelled, perhaps, by another process.
                    self._leases.cancelling(await self._offload(self._being_cancelled))
                else:
                    # What goes over the broker is another kind of work: it takes over nothing of processes.
                    await self.adopt()
            except (DatabaseUnavailableError, StorageFullError) as error:
                _log.warning("sweep waits", reason=str(error))

    async def expire(self) -> None:
        """Give up attempts whose claim is silent, and dispatch again what nobody has accepted.

        Nobody is silent who cannot speak: when the bus lets nobody, all that is waited for begins anew after.
        """
        if not self._was_cut_off and not self._leases.are_due(self._last_idle()):
            return
        reason = await self._why_cut_off()
        was_cut_off, self._was_cut_off = self._was_cut_off, reason is not None
        if reason is not None and not was_cut_off:
            _log.warning("nobody can be heard, so nothing is given up", reason=reason)
        if reason is None and was_cut_off:
            _log.info("everybody can be heard again")
            self._leases.begin_anew(with_limits=True)
        if reason is not None or was_cut_off:
            return
        for lease in self._leases.expired(self._last_idle()):
            await self._change(partial(self._expire, lease))
        for request in self._leases.overdue():
            await self._change(partial(self._dispatch_again, request))

    async def adopt(self) -> None:
        """Take over what nobody alive carries."""
        for operation in await self._offload(self._abandoned):
            taken = await self._transactions.change(partial(self._take_over, operation))
            if taken is not None:
                self.taken_over(taken)
        await self._offload(self._forget_dead_mail)

    def taken_over(self, operation: OperationRecord) -> None:
        """Wait for what was taken over: not for a whole lease, since its runner died with its process."""
        self._leases.follow(operation, first_s=TAKEOVER_GRACE_S)
        self._on_change(operation)

    async def _follow_own(self) -> None:
        carried, published = await self._offload(self._own)
        for operation in carried:
            self._leases.follow(operation)
            event_id = published.get(operation.operation_id)
            if event_id is not None and operation.state is State.QUEUED:
                self._leases.wait_for_claim(
                    operation.operation_id, operation.attempt, event_id, self._accept_deadline_s
                )

    def _own(self) -> tuple[list[OperationRecord], dict[str, str]]:
        """Return what this instance owns, and the event ids of the newest requests that are on the bus."""
        carried = [operation for operation in self._store.unfinished() if operation.owner == self._instance]
        query = (
            select(outbox.c.operation_id, outbox.c.event_id, outbox.c.sent_at)
            .join(operations, operations.c.id == outbox.c.operation_id)
            .where(operations.c.state == State.QUEUED, operations.c.owner == self._instance)
            .where(outbox.c.type == TrainingRequested.type_name())
            .order_by(outbox.c.id)
        )
        with self._store.reading() as connection:
            newest = {row.operation_id: row for row in connection.execute(query)}
        return carried, {row.operation_id: row.event_id for row in newest.values() if row.sent_at is not None}

    def _being_cancelled(self) -> list[str]:
        query = select(operations.c.id).where(operations.c.state == State.CANCELLING)
        with self._store.reading() as connection:
            return list(connection.execute(query).scalars())

    def _abandoned(self) -> list[OperationRecord]:
        return [
            operation
            for operation in self._store.unfinished(of_others_than=self._instance)
            if self._store.is_interrupted(operation)
        ]

    def _take_over(self, abandoned: OperationRecord, work: Work) -> OperationRecord | None:
        operation = work.operation(abandoned.operation_id)
        if operation is None or operation.revision != abandoned.revision:
            return None  # another process was faster
        return dispatching.take_over(work, operation, self._instance)

    def _forget_dead_mail(self) -> None:
        query = select(outbox.c.owner).where(outbox.c.sent_at.is_(None)).distinct()
        with self._store.reading() as connection:
            owners = [owner for owner in connection.execute(query).scalars() if owner != self._instance]
        for owner in owners:
            if self._store.instances.is_gone(owner):
                self._store.change(partial(dispatching.forget_unsent, instance=owner))

    def _expire(self, lease: Lease, work: Work) -> OperationRecord | None:
        silent = f"nothing was heard of {lease.claim_id} for {lease.lease_s:g} s"
        return attempts.lease_expired(
            work, lease.operation_id, lease.attempt, lease.claim_id, silent, self._retries
        )

    def _dispatch_again(self, request: Request, work: Work) -> OperationRecord | None:
        return returning.not_accepted(
            work, request.operation_id, request.attempt, request.event_id, request.within_s, self._retries
        )

    async def _change(self, action: Callable[[Work], OperationRecord | None]) -> None:
        changed = await self._transactions.change(action)
        if changed is not None:
            self._on_change(changed)
