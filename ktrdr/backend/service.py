"""The backend of one process: what it is told to train, it sees to an end."""

import asyncio
import random
import socket
from collections.abc import AsyncGenerator
from contextlib import aclosing
from types import TracebackType
from typing import Self

import structlog

from ktrdr.backend import cancelling
from ktrdr.backend.attempts import RetryPolicy
from ktrdr.backend.audit import Witness
from ktrdr.backend.consumer import EventHandlers
from ktrdr.backend.falling_back import Refuge
from ktrdr.backend.following import Following
from ktrdr.backend.housekeeping import Housekeeper
from ktrdr.backend.instances import BROKER_OWNER
from ktrdr.backend.leases import Leases
from ktrdr.backend.listening import Listening
from ktrdr.backend.log_recorder import LogRecorder
from ktrdr.backend.outage import Outage
from ktrdr.backend.outbox import Outbox
from ktrdr.backend.persistence import ModelPersister, RenderReport
from ktrdr.backend.presences import Presences
from ktrdr.backend.progress import ProgressRecorder
from ktrdr.backend.publisher import OutboxRelay
from ktrdr.backend.records import OperationRecord, Submission, SubmitTraining
from ktrdr.backend.registration import Registration
from ktrdr.backend.retention import Retention
from ktrdr.backend.sources import Sources
from ktrdr.backend.speakers import Speakers
from ktrdr.backend.states import State
from ktrdr.backend.steps import StepLog
from ktrdr.backend.store import OperationStore
from ktrdr.backend.submitting import Submitter
from ktrdr.backend.subscription import Subscription
from ktrdr.backend.sweep import Sweep
from ktrdr.backend.transactions import Transactions
from ktrdr.backend.waiting import Offload
from ktrdr.backend.watching import Feed
from ktrdr.backend.work import Work
from ktrdr.blobs.store import BlobStore
from ktrdr.bus.port import Bus
from ktrdr.bus.publisher import EventPublisher
from ktrdr.clock import Clock
from ktrdr.errors import (
    KtrdrError,
    StoreError,
)
from ktrdr.ids import IdFactory
from ktrdr.models.directory import ModelDirectory
from ktrdr.settings import Settings

_log = structlog.get_logger()

_SWEEP_S = 1.0
_DRAIN_S = 2.0
_DRAIN_POLL_S = 0.02


class Backend:
    """Accepts trainings, has agents run them over a bus, and keeps their models.

    Once `submit` has returned, the operation ends in a model, a failure or a cancellation: in this process
    or, if it dies, in the next. Use it as a context manager, or call `start` and `stop`.

    A backend whose bus is a broker carries the operations of `BROKER_OWNER`, together with any others that
    do: these go on while none is there, and are waited for when one is back.

    Args:
        settings: paths, limits and times.
        bus: its own connection; `stop` leaves it open.
        owner: `BROKER_OWNER` if the bus outlives this process; None: what it carries is its own.
        instance: its name, which no other process has; None: a random one.
        refuge: where what was to run on a host may run instead; None: nowhere.
        user: the broker's user that it is, if the broker vouches for users: nobody speaks for others then.
        store: where operations are recorded.
        blobs: where results lie that are too large for a message.
        clock: time.
        ids: identifiers.
        render_report: makes ``report.html`` of a model's files, in a thread; None: models have no report.
        models: where models go, if not where the settings say.
        offload: runs what blocks.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        bus: Bus,
        store: OperationStore,
        blobs: BlobStore,
        clock: Clock,
        ids: IdFactory,
        render_report: RenderReport | None = None,
        models: ModelDirectory | None = None,
        offload: Offload = asyncio.to_thread,
        owner: str | None = None,
        instance: str | None = None,
        user: str | None = None,
        refuge: Refuge | None = None,
    ) -> None:
        self.instance = instance or ids.token()
        """The name of this process among those that share the database."""
        self.owner = owner or self.instance
        """Whose operations it carries."""
        self._settings = settings
        self._bus = bus
        self._store = store
        self._clock = clock
        self._ids = ids
        self._offload = offload
        self._refuge = refuge
        retries = RetryPolicy(settings.retry_backoff_s, refuge)
        host = socket.gethostname()
        sender, sources = f"backend@{host}", Sources(host, ids)
        rng = random.Random(ids.seed())  # noqa: S311  # it only spreads pauses
        self._leases = Leases(self.owner, clock.monotonic)
        self._feed = Feed(store, clock, offload=offload, on_commit=self._catch_up)
        self._progress = ProgressRecorder(
            store, clock=clock, offload=offload, on_progress=self._feed.progressed
        )
        self._presences = Presences(store, clock=clock, offload=offload, lease_s=settings.lease_s)
        self._submitter = Submitter(settings, store, clock=clock, ids=ids)
        self._transactions = Transactions(store, self.owner, clock=clock, offload=offload)
        self._logs = LogRecorder(self._transactions, clock=clock)
        self._steps = StepLog()
        self._relay = OutboxRelay(
            Outbox(store, self.owner, self.instance, retries, self._transactions),
            EventPublisher(bus, sender=sender, ids=ids, clock=clock, timeout_s=settings.publish_timeout_s),
            clock=clock,
            offload=offload,
            on_change=self._changed,
            on_requested=self._leases.requested,
        )
        self._following = Following(
            store,
            self.owner,
            self._leases,
            clock=clock,
            accept_deadline_s=settings.accept_deadline_s,
            offload=offload,
            on_change=self._changed,
            on_mail=self._relay.wake,
        )
        self._persister = ModelPersister(
            store,
            models or ModelDirectory(settings.models_dir),
            blobs,
            owner=self.owner,
            instance=self.instance,
            retries=retries,
            limit_bytes=settings.max_model_bytes,
            render_report=render_report,
        )
        handlers = EventHandlers(
            transactions=self._transactions,
            store=store,
            persister=self._persister,
            leases=self._leases,
            progress=self._progress,
            logs=self._logs,
            presences=self._presences,
            speakers=Speakers(user),
            retries=retries,
            lease_s=settings.lease_s,
            clock=clock,
            offload=offload,
            on_change=self._changed,
        )
        self._listening = Listening(
            bus, self._leases, clock=clock, ids=ids, timeout_s=settings.publish_timeout_s
        )
        outage = Outage(self._transactions, clock=clock)
        readers = [
            Subscription(
                bus,
                source,
                prefetch=prefetch,
                consumer_tag=f"{sender}/{self.instance}",
                handle=handle,
                on_obstacle=handlers.note_obstacle,
                pause=handlers.pause,
                outage=outage,
                clock=clock,
                on_return=on_return,
                shortcut=handlers.at_sight if source == sources.presence else None,
                excuse=self._presences.take_unreadable if source == sources.presence else None,
                rng=rng,
            )
            for source, prefetch, handle, on_return in (
                (sources.events, 16, handlers.durable, self._listening.heard_again),
                (sources.returned, 16, handlers.returned, self._listening.heard_again),
                (sources.progress, 200, handlers.transient, self._listening.heard_again),
                (sources.presence, 200, handlers.transient, self._listening.heard_again),
                (sources.logs, 50, handlers.transient, lambda: None),
            )
        ]
        self._listening.subscriptions, self._listening.asides = readers[:-1], readers[-1:]
        self._sweep = Sweep(
            store,
            self._transactions,
            self._leases,
            self._following,
            instance=self.instance,
            owner=self.owner,
            retries=retries,
            interval_s=min(_SWEEP_S, settings.lease_s / 4),
            clock=clock,
            offload=offload,
            last_idle=self._listening.last_idle,
            why_cut_off=self._listening.why_cut_off,
            accept_deadline_s=settings.accept_deadline_s,
            on_change=self._changed,
            is_listening=lambda: self._listening.is_listening,
            is_held_up=lambda: self._relay.is_held_up,
        )
        self._housekeeper = Housekeeper(
            store, self._transactions, Retention.from_settings(settings), clock=clock
        )
        self._registration = Registration(
            store, self.instance, owner=self.owner, clock=clock, offload=offload
        )
        self._working: asyncio.Task[None] | None = None

    # --- life -------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Begin to work, first of all on what is left unfinished.

        A bus that is away is waited for.

        Raises:
            BusError: the bus has something else under our names, or was closed.
            DatabaseUnavailableError: the database, or the directory of instances, cannot be written.
            StorageFullError: a disk is full.
        """
        await self._registration.enter()
        await self._listening.declare()
        await self._offload(self._repair)
        await self._sweep.begin()
        self._working = asyncio.create_task(self._work(), name=f"backend-{self.instance}")
        self._working.add_done_callback(self._ended)

    async def stop(self) -> None:
        """End; what is not finished is free for other processes, unless it goes over a broker.

        May be called again, or without `start`. What agents have said by now is still heard.

        Raises:
            Exception: what brought the backend down before, if anything did.
        """
        working, self._working = self._working, None
        crash: BaseException | None = None
        if working is not None:
            await self._drain(working)
            working.cancel()
            await asyncio.wait((working,))
            crash = None if working.cancelled() else working.exception()
            await self._progress.flush()
            await self._logs.flush()
            await self._flush_presences()
        self._feed.fail(StoreError("The backend was stopped."))
        await self._registration.leave()
        if crash is not None:
            raise _cause(crash)

    async def wait_until_ended(self) -> None:
        """Return when the backend has been stopped.

        Raises:
            Exception: what brought it down.
        """
        if (working := self._working) is not None:
            await asyncio.wait((working,))
            if not working.cancelled() and (error := working.exception()) is not None:
                raise _cause(error)

    async def __aenter__(self) -> Self:
        try:
            await self.start()
        except BaseException:
            await self.stop()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.stop()

    # --- for clients ------------------------------------------------------------------------------

    async def submit(self, wish: SubmitTraining, *, witness: Witness | None = None) -> Submission:
        """Accept a training; when this returns, nothing loses it any more.

        It may be called before `start`: the operation then comes before what `start` takes over.

        Args:
            wish: what to train.
            witness: of the operation, unless it was there before.

        Raises:
            ModelError: strategy, symbol or timeframe cannot be part of a path.
            CodecError: the request is too large to be sent.
            IdempotencyError: another request has its idempotency key.
            DatabaseUnavailableError: the database cannot be written.
            StorageFullError: its disk is full.
        """
        await self._registration.enter()
        decision = self._submitter.decision(wish, owner=self.owner, witness=witness)
        submission = await self._transactions.change(decision)
        if submission.resumed:
            self._sweep.taken_over(submission.operation)
        else:
            self._changed(submission.operation)
        return submission

    async def cancel(
        self, operation_id: str, reason: str, *, witness: Witness | None = None
    ) -> OperationRecord:
        """Have an operation stopped; see `OperationStore.cancel`.

        Args:
            operation_id: of the operation.
            reason: for its history.
            witness: of the cancellation, unless the operation has completed or failed before.
        """
        is_gone = self._store.instances.is_gone

        def action(work: Work) -> OperationRecord:
            operation = cancelling.cancel(work, operation_id, reason, is_gone)
            if witness is not None and operation.state in cancelling.STOPPED:
                witness(work, operation_id)
            return operation

        operation = await self._transactions.change(action)
        self._changed(operation)
        return operation

    def watch(self, operation_id: str) -> AsyncGenerator[OperationRecord, None]:
        """Yield an operation as it is, then each time it changes or gets on; ends after its end.

        Who is slow gets the newest and misses what was between. Works for operations of other processes too.

        Raises:
            OperationNotFoundError: there is none of that id.
            Exception: what brought the backend down.
        """
        return self._feed.watch(operation_id)

    async def wait(self, operation_id: str) -> OperationRecord:
        """Return the operation when it has ended; raises as `watch` does."""
        async with aclosing(self._feed.watch(operation_id)) as records:
            async for record in records:
                if record.state.terminal:
                    return record
        raise AssertionError("a watch ends with the end of its operation")

    @property
    def is_listening(self) -> bool:
        """Whether the bus is there, as far as is known without asking it."""
        return self._listening.is_listening

    @property
    def held_up_by(self) -> str | None:
        """What is in the way of results, for so long that they are left where they are; None: nothing."""
        return self._listening.held_up_by

    async def settle(self) -> None:
        """Wait until it shows whether the bus is there; see `Listening.settle`."""
        await self._listening.settle()

    async def next_unfinished(self) -> str | None:
        """Return the oldest operation that this backend carries and that has not ended."""
        unfinished = await self._offload(self._store.unfinished)
        return next((op.operation_id for op in unfinished if op.owner == self.owner), None)

    # --- inside -----------------------------------------------------------------------------------

    async def _work(self) -> None:
        async with asyncio.TaskGroup() as group:
            self._listening.start(group)
            services = (self._relay, self._sweep, self._feed, self._progress, self._logs, self._registration)
            for forever in (*services, self._housekeeper):
                group.create_task(forever.run())
            if self._is_broker:
                group.create_task(self._presences.run())

    def _ended(self, working: asyncio.Task[None]) -> None:
        if not working.cancelled() and (error := working.exception()) is not None:
            _log.critical("backend is down", error=str(_cause(error)), exc_info=error)
            self._feed.fail(_cause(error))

    def _changed(self, operation: OperationRecord) -> None:
        self._leases.follow(operation)
        self._feed.changed(operation)
        self._steps.follow(operation)
        if self._has_just_fallen_back(operation):
            _log.warning(
                "fell back",
                operation_id=operation.operation_id,
                attempt=operation.attempt,
                reason=operation.place_reason,
            )
        if operation.state.terminal:
            self._progress.forget(operation.operation_id)

    async def _catch_up(self) -> None:
        await self._following.catch_up(is_due=False)

    def _has_just_fallen_back(self, operation: OperationRecord) -> bool:
        # From then on it is the other's, who publishes its request within milliseconds.
        has_refuge = self._refuge is not None and operation.owner == self._refuge.instance
        return has_refuge and operation.state is State.PENDING

    async def _flush_presences(self) -> None:
        if self._is_broker:
            await self._presences.flush()

    @property
    def _is_broker(self) -> bool:
        return self.owner == BROKER_OWNER

    def _repair(self) -> None:
        self._store.instances.remove_stale()
        try:
            self._persister.repair(self._store.instances.is_gone)
        except KtrdrError as error:
            # Nothing depends on it: links are made anew with the next model.
            _log.warning("models directory not put right", error=str(error))

    async def _drain(self, working: asyncio.Task[None]) -> None:
        end = self._clock.monotonic() + _DRAIN_S
        while not working.done() and self._clock.monotonic() < end:
            if self._relay.idle.is_set() and self._listening.idle:
                return
            await self._clock.sleep(_DRAIN_POLL_S)


def _cause(error: BaseException) -> BaseException:
    """Return the first error of what may be a group of groups."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
