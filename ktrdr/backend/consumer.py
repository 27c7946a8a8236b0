"""What the backend does with each event of the agents."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta

import structlog

from ktrdr.backend import attempts, cancelling, granting, returning
from ktrdr.backend.leases import Leases
from ktrdr.backend.log_recorder import LogRecorder
from ktrdr.backend.persistence import ModelPersister, VerifiedModel
from ktrdr.backend.presences import Presences
from ktrdr.backend.progress import ProgressRecorder
from ktrdr.backend.records import HistoryKind, OperationRecord
from ktrdr.backend.results import is_wanted
from ktrdr.backend.settling import RefusedError
from ktrdr.backend.speakers import Speakers
from ktrdr.backend.states import State
from ktrdr.backend.store import OperationStore
from ktrdr.backend.transactions import Transactions
from ktrdr.backend.waiting import Offload, Turns
from ktrdr.backend.work import Work
from ktrdr.bus.dead_letters import REASON_HEADER, DeathCause
from ktrdr.clock import Clock
from ktrdr.errors import DatabaseUnavailableError, KtrdrError, StorageFullError
from ktrdr.events import (
    AgentPresence,
    CheckpointSaved,
    ClaimEvent,
    Envelope,
    Message,
    ModelReady,
    RunningAttempt,
    TrainingAccepted,
    TrainingCancelled,
    TrainingFailed,
    TrainingLogged,
    TrainingProgress,
    TrainingRequested,
)

_log = structlog.get_logger()

_LOOK_AGAIN_S = 0.25
_ANSWER_TAKES = timedelta(seconds=2)
_LARGE_AT_ONCE = 2
"""Models that are fetched from the blob store: they fill the memory, and threads when it is slow or away."""
_INLINE_AT_ONCE = 2
"""One writes while another waits for the disk; more threads only hold each other up."""


@dataclass(frozen=True, slots=True)
class EventHandlers:
    """Turns events into transactions; each is durable when its handler returns.

    Args:
        transactions: where operations are changed.
        store: where they are read.
        persister: takes results.
        leases: are renewed by every event of the claim that holds them.
        progress: takes progress.
        logs: takes lines of logs.
        presences: takes what agents say of themselves.
        speakers: decides whose word counts.
        retries: what follows a failed attempt.
        lease_s: of a claim whose acceptance has not arrived.
        clock: for pauses.
        offload: where the database is asked.
        on_change: told of each operation that may have changed.
    """

    transactions: Transactions
    store: OperationStore
    persister: ModelPersister
    leases: Leases
    progress: ProgressRecorder
    logs: LogRecorder
    presences: Presences
    speakers: Speakers
    retries: attempts.RetryPolicy
    lease_s: float
    clock: Clock
    offload: Offload
    on_change: Callable[[OperationRecord], None]
    _turns: Turns = field(default_factory=Turns, init=False)
    _large: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(_LARGE_AT_ONCE), init=False)
    _inline: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(_INLINE_AT_ONCE), init=False)

    async def durable(self, envelope: Envelope) -> None:
        """Handle an event of the queue of durable events.

        Raises:
            RefusedError: who says it may not.
        """
        self._require_right(envelope)
        event, event_id = envelope.event, envelope.event_id
        if isinstance(event, ClaimEvent):
            self.leases.renew(event.operation_id, event.attempt, event.claim_id)
        match event:
            case TrainingAccepted():
                await self._change(
                    lambda work: granting.accepted(work, event, first=work.first_time(event_id, event))
                )
            case CheckpointSaved():
                await self._once(event, event_id, lambda work: self._save_checkpoint(work, event))
            case TrainingFailed():
                await self._once(
                    event, event_id, lambda work: attempts.attempt_failed(work, event, self.retries)
                )
            case TrainingCancelled():
                await self._once(
                    event, event_id, lambda work: attempts.attempt_cancelled(work, event, self.retries)
                )
            case ModelReady():
                await self._take(event, event_id)
            case _:
                _log.warning("event has no business here", type=event.type_name(), sender=envelope.sender)

    def _save_checkpoint(self, work: Work, event: CheckpointSaved) -> OperationRecord | None:
        granting.heard(work, event, agent_id=event.agent_id, device="unknown", lease_s=self.lease_s)
        return attempts.checkpoint_saved(work, event)

    async def _take(self, event: ModelReady, event_id: str) -> None:
        async with self._inline if event.blob is None else self._large:
            result = await self.offload(lambda: self.persister.examine(event, event_id))
            if isinstance(result, VerifiedModel):
                result = await self._register(result)
        self._changed(result)

    async def _register(self, model: VerifiedModel) -> OperationRecord | None:
        before = model.operation
        async with self._turns.of(f"{before.strategy}/{before.symbol}/{before.timeframe}"):
            return await self.offload(lambda: self.persister.register(model))

    async def transient(self, envelope: Envelope) -> None:
        """Handle progress, presence or lines of a log.

        Raises:
            RefusedError: who says it may not.
        """
        self._require_right(envelope)
        match envelope.event:
            case TrainingProgress() as event:
                self._progress(event)
            case TrainingLogged() as event:
                self.logs.record(event)
            case AgentPresence() as event:
                self.presences.take(event, envelope)
                await self._presence(event)
            case event:
                _log.warning("event has no business here", type=event.type_name(), sender=envelope.sender)

    async def returned(self, envelope: Envelope) -> None:
        """Handle a request that no agent took.

        Raises:
            RefusedError: it is a matter for a person, whatever became of its operation.
        """
        event = envelope.event
        if not isinstance(event, TrainingRequested):
            raise RefusedError(f"A {event.type_name()} is nothing that a lane gives back.")
        message = envelope.message
        reason = str(message.headers.get(REASON_HEADER, "")) if message is not None else ""
        self.leases.came_back(event.operation_id, envelope.event_id)
        await self._change(
            lambda work: returning.came_back(work, event, envelope.event_id, reason, self.retries)
        )
        if reason == DeathCause.REJECTED:
            raise RefusedError("An agent rejected it, and could not say why.")

    def at_sight(self, message: Message) -> bool:
        """Handle presence that says nothing new and asks for no answer; return whether it did."""
        event = self.presences.recognize(message)
        return event is not None and not self._unsettled(event)

    def _require_right(self, envelope: Envelope) -> None:
        reason = self.speakers.why_not_heard(envelope)
        if reason is not None:
            raise RefusedError(reason)

    def _progress(self, event: TrainingProgress) -> None:
        # Of an attempt that is superseded, refused or over it is of no interest; nor before the grant.
        if self.leases.renew(event.operation_id, event.attempt, event.claim_id) is not None:
            self.progress.record(event)

    def _unsettled(self, event: AgentPresence) -> list[RunningAttempt]:
        """Renew the leases of what an agent holds; return what is not simply to go on."""
        unsettled = []
        for running in event.running:
            lease = self.leases.renew(running.operation_id, running.attempt, running.claim_id)
            if lease is None or lease.is_cancelling:
                unsettled.append(running)
        return unsettled

    async def _presence(self, event: AgentPresence) -> None:
        if not (unsettled := self._unsettled(event)):
            return

        def action(work: Work) -> list[OperationRecord]:
            # In one order: other backends hear the same.
            ordered = sorted(unsettled, key=lambda running: running.operation_id)
            heard = (self._hear(work, running, event) for running in ordered)
            return [operation for operation in heard if operation is not None]

        for operation in await self.transactions.change(action):
            self.on_change(operation)

    def _hear(self, work: Work, running: RunningAttempt, event: AgentPresence) -> OperationRecord | None:
        operation = granting.heard(
            work, running, agent_id=event.agent_id, device=event.device, lease_s=self.lease_s
        )
        # Level-triggered: who has missed that it is to stop is told again, as long as it says that it runs.
        unwanted = cancelling.why_unwanted(work, operation, running)
        if unwanted is not None and not _is_being_answered(work, operation, running):
            cancelling.tell_to_stop(work, running, unwanted)
        return operation

    async def _once(
        self, event: ClaimEvent, event_id: str, action: Callable[[Work], OperationRecord | None]
    ) -> None:
        def if_new(work: Work) -> OperationRecord | None:
            return action(work) if work.first_time(event_id, event) else work.operation(event.operation_id)

        await self._change(if_new)

    async def _change(self, action: Callable[[Work], OperationRecord | None]) -> None:
        self._changed(await self.transactions.change(action))

    def _changed(self, operation: OperationRecord | None) -> None:
        if operation is not None:
            self.on_change(operation)

    # --- what is in the way -----------------------------------------------------------------------

    async def note_obstacle(self, envelope: Envelope, error: KtrdrError) -> None:
        """Tell those who follow the operation what an event waits for."""
        operation_id = envelope.operation_id
        if operation_id is None:
            return

        def action(work: Work) -> OperationRecord | None:
            operation = work.operation(operation_id)
            if operation is None or not is_wanted(operation) or operation.message == str(error):
                return None
            work.note(operation, HistoryKind.RESULT_WAITS, str(error))
            return work.change(operation, message=str(error))

        try:
            await self._change(action)
        except (DatabaseUnavailableError, StorageFullError):
            return  # it is in the log

    async def pause(self, envelope: Envelope, seconds: float) -> None:
        """Wait before an event is tried again, its lease renewed; a cancellation ends the wait."""
        now = self.clock.monotonic()
        end, told_others_at = now + seconds, float("-inf")
        event = envelope.event
        while (left_s := end - (now := self.clock.monotonic())) > 0:
            if isinstance(event, ClaimEvent):
                self.leases.renew(event.operation_id, event.attempt, event.claim_id)
                if now - told_others_at >= self.lease_s / 3:
                    told_others_at = now
                    await self._tell_others(event)
                if await self._is_to_end(event.operation_id):
                    return
            await self.clock.sleep(min(left_s, _LOOK_AGAIN_S))

    async def _tell_others(self, event: ClaimEvent) -> None:
        """Let other backends renew the lease too: of what waits here, they hear nothing."""

        def action(work: Work) -> OperationRecord | None:
            operation = work.operation(event.operation_id)
            is_held = operation is not None and operation.claim_id == event.claim_id
            return work.change(operation) if operation is not None and is_held else None

        try:
            await self._change(action)
        except (DatabaseUnavailableError, StorageFullError):
            return  # who can read it, could not have been told by this process

    async def _is_to_end(self, operation_id: str) -> bool:
        try:
            operation = await self.offload(lambda: self.store.get(operation_id))
        except KtrdrError:
            return False
        return operation.state is State.CANCELLING or operation.state.terminal


def _is_being_answered(work: Work, operation: OperationRecord | None, claim: RunningAttempt) -> bool:
    """Return whether an agent is about to hear that its model is persisted, and so will list it no longer."""
    return (
        operation is not None
        and operation.state is State.COMPLETED
        and operation.claim_id == claim.claim_id
        and operation.finished_at is not None
        and work.now - operation.finished_at < _ANSWER_TAKES
    )
