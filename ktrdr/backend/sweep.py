"""What must happen though nobody says anything: leases expire, requests are overdue, processes die."""

from collections.abc import Awaitable, Callable, Iterable
from functools import partial

import structlog
from sqlalchemy import select

from ktrdr.backend import attempts, dispatching, returning
from ktrdr.backend.away import Away
from ktrdr.backend.following import Following
from ktrdr.backend.instances import BROKER_OWNER
from ktrdr.backend.leases import Lease, Leases, Request
from ktrdr.backend.records import OperationRecord
from ktrdr.backend.servers import note_end, note_reach, read_servers
from ktrdr.backend.statements import CLAIMANTS
from ktrdr.backend.store import OperationStore
from ktrdr.backend.tables import outbox
from ktrdr.backend.transactions import Transactions
from ktrdr.backend.waiting import Offload
from ktrdr.backend.work import Work
from ktrdr.clock import Clock
from ktrdr.errors import DatabaseUnavailableError, StorageFullError

_log = structlog.get_logger()

TAKEOVER_GRACE_S = 5.0
"""An agent that adopts a dead one's claims reports them at once; after so long nobody has."""


class Sweep:
    """Looks after the operations of one owner, and after those that dead instances have left.

    Others that carry the same owner may do so too: whoever is first, in the database, is the one.

    Args:
        store: where operations are.
        transactions: where they are changed.
        leases: what is waited for.
        following: keeps up with what others do.
        instance: this one.
        owner: whose operations it carries.
        retries: what follows an attempt that was given up.
        interval_s: between two sweeps.
        clock: for intervals.
        offload: where the database is asked.
        last_idle: when every queue was last seen empty, in monotonic seconds.
        why_cut_off: asked before anything is given up: why nobody can be heard, if that is so.
        accept_deadline_s: how long the broker may be away before what waits for an agent falls back.
        on_change: told of each operation that changed.
        is_listening: whether the bus is there, as far as is known without asking it.
        is_held_up: whether it took nothing when it was last given anything.
    """

    def __init__(
        self,
        store: OperationStore,
        transactions: Transactions,
        leases: Leases,
        following: Following,
        *,
        instance: str,
        owner: str,
        retries: attempts.RetryPolicy,
        interval_s: float,
        clock: Clock,
        offload: Offload,
        last_idle: Callable[[], float],
        why_cut_off: Callable[[], Awaitable[str | None]],
        accept_deadline_s: float,
        on_change: Callable[[OperationRecord], None],
        is_listening: Callable[[], bool],
        is_held_up: Callable[[], bool],
    ) -> None:
        self._store = store
        self._transactions = transactions
        self._leases = leases
        self._following = following
        self._instance = instance
        self._owner = owner
        self._retries = retries
        self._interval_s = interval_s
        self._clock = clock
        self._offload = offload
        self._last_idle = last_idle
        self._why_cut_off = why_cut_off
        self._is_listening = is_listening
        self._is_held_up = is_held_up
        self._was_cut_off = False
        self._noted_reach: bool | None = None
        self._on_change = on_change
        self._away = None
        if retries.refuge is not None:
            self._away = Away(
                store,
                transactions,
                retries.refuge,
                instance=instance,
                is_away=lambda: not self._reaches_bus,
                after_s=accept_deadline_s,
                clock=clock,
                offload=offload,
                on_change=on_change,
            )

    async def begin(self) -> None:
        """Go on with what is this instance's to go on with: what its owner has, or what nobody carries."""
        await self._following.catch_up()
        if self._owner == BROKER_OWNER:
            await self._offload(self._note_the_dead)
        await self._succeed()

    async def run(self) -> None:
        """Sweep for ever."""
        while True:
            await self._clock.sleep(self._interval_s)
            try:
                # First: what others have heard must not be taken for silent.
                await self._following.catch_up()
                await self.expire()
                await self._note_reach()
                if self._away is not None:
                    await self._away.look()
                await self._succeed()
            except (DatabaseUnavailableError, StorageFullError) as error:
                _log.warning("sweep waits", reason=str(error))

    async def expire(self) -> None:
        """Give up attempts whose claim is silent, and dispatch again what nobody has accepted.

        Nobody is silent who cannot speak: when the bus lets nobody, all that is waited for begins anew after.
        """
        # A broker that takes no messages may be quiet otherwise: then only who publishes knows.
        has_cause = self._was_cut_off or self._is_held_up() or self._leases.are_due(self._last_idle())
        if not has_cause:
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
            self._leases.came_back(request.operation_id, request.event_id)

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

    async def _succeed(self) -> None:
        """Go on with what the dead have left."""
        if self._owner == BROKER_OWNER:
            # What goes over the broker is another kind of work: it takes over nothing of processes.
            await self._offload(self._free_claims)
        else:
            await self.adopt()

    def _note_the_dead(self) -> None:
        with self._store.reading() as connection:
            recorded = [server.instance for server in read_servers(connection)]
        self._for_the_dead(recorded, note_end)

    @property
    def _reaches_bus(self) -> bool:
        return self._is_listening() and not self._was_cut_off

    async def _note_reach(self) -> None:
        """Let others know whether this instance can be heard."""
        if self._owner == BROKER_OWNER and self._noted_reach is not (reaches := self._reaches_bus):
            await self._transactions.change(partial(note_reach, instance=self._instance, reaches_bus=reaches))
            self._noted_reach = reaches

    def _free_claims(self) -> None:
        with self._store.reading() as connection:
            claimants = list(connection.execute(CLAIMANTS, {"of_owner": self._owner}).scalars())
        self._for_the_dead(claimants, dispatching.free_claims)

    def _abandoned(self) -> list[OperationRecord]:
        # What goes over the broker never is.
        return [
            operation
            for operation in self._store.unfinished(of_others_than=(self._instance, BROKER_OWNER))
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
            owners = list(connection.execute(query).scalars())
        self._for_the_dead(owners, dispatching.forget_unsent)

    def _for_the_dead(self, instances: Iterable[str], action: Callable[..., object]) -> None:
        """Do what is to be done, in a transaction each, for those of other instances that are gone."""
        for instance in instances:
            if instance != self._instance and self._store.instances.is_gone(instance):
                self._store.change(partial(action, instance=instance))

    def _expire(self, lease: Lease, work: Work) -> OperationRecord | None:
        return attempts.lease_expired(
            work, lease.operation_id, lease.attempt, lease.claim_id, lease.lease_s, self._retries
        )

    def _dispatch_again(self, request: Request, work: Work) -> OperationRecord | None:
        return returning.not_accepted(
            work, request.operation_id, request.attempt, request.event_id, request.within_s, self._retries
        )

    async def _change(self, action: Callable[[Work], OperationRecord | None]) -> None:
        changed = await self._transactions.change(action)
        if changed is not None:
            self._on_change(changed)
