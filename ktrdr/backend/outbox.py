"""Events that were decided on and are yet to be published, as rows."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from ktrdr.backend import attempts, dispatching
from ktrdr.backend.records import HistoryKind, OperationRecord, OutgoingEvent
from ktrdr.backend.statements import CLAIM, OUTGOING, UNSENT, UPDATE_OUTGOING
from ktrdr.backend.store import OperationStore
from ktrdr.backend.transactions import Transactions
from ktrdr.backend.work import Work
from ktrdr.events import EVENT_TYPES, FailureCause, OperationEvent, TrainingRequested

LOOK_AT = 256
"""Rows at once: after a long outage thousands wait."""
_MARK_WITHIN_S = 0.02
_TYPES = {kind.type_name(): kind for kind in EVENT_TYPES if issubclass(kind, OperationEvent)}


@dataclass(frozen=True, slots=True)
class UnsentEvent:
    """One row of the outbox, without what it says."""

    row_id: int
    event_id: str
    operation_id: str
    delay_s: float
    """How long to wait from when it was first seen."""


@dataclass(frozen=True, slots=True)
class Look:
    """What one look into the outbox has found."""

    waiting: list[UnsentEvent]
    """What was looked at, in the order of the decisions: at most `LOOK_AT`."""
    outgoing: list[OutgoingEvent]
    """Those of them that are to be published here and now."""
    is_last: bool
    """Whether there was nothing after them."""


class Outbox:
    """The events of one owner that are to be published, each by one of the instances that carry it.

    Which one, is in its row: an instance has what it committed itself, and claims what has no claim. What has
    failed has none. Claims of an instance that died are freed by whoever finds out.

    Args:
        store: where they are recorded.
        owner: whose they are.
        instance: that which publishes here.
        retries: what follows a request that can never be sent.
        transactions: where what becomes of them is recorded.
    """

    def __init__(
        self,
        store: OperationStore,
        owner: str,
        instance: str,
        retries: attempts.RetryPolicy,
        transactions: Transactions,
    ) -> None:
        self._store = store
        self._owner = owner
        self._instance = instance
        self._retries = retries
        self._transactions = transactions

    def follow(self, tell: Callable[[list[OutgoingEvent]], object] | None) -> None:
        """Have what this process commits told at once, in whichever thread; None: no more."""
        self._store.publish_for(self._owner, self._instance, tell)

    def unsent(self, is_due: Callable[[UnsentEvent], bool], *, after: int = 0, at_most: int) -> Look:
        """Look at some of what is yet to be published. It blocks.

        Args:
            is_due: tells which of them are of interest now.
            after: the row before the first that is looked at.
            at_most: so many of those of interest are claimed and read; what follows them is not looked at.
        """
        values = {"of_owner": self._owner, "after": after, "at_most": LOOK_AT}
        with self._store.reading() as connection:
            rows = connection.execute(UNSENT, values).all()
        is_last = len(rows) < LOOK_AT
        waiting: list[UnsentEvent] = []
        ours: list[int] = []
        free: list[int] = []
        for row in rows:
            if len(ours) + len(free) >= at_most:
                is_last = False
                break
            event = UnsentEvent(row.id, row.event_id, row.operation_id, row.delay_s)
            waiting.append(event)
            if row.claimed_by in (None, self._instance) and is_due(event):
                (free if row.claimed_by is None else ours).append(event.row_id)
        if free:
            ours += self._store.change(partial(self._claim, free))
        return Look(waiting, self._read(ours) if ours else [], is_last)

    def _claim(self, row_ids: list[int], work: Work) -> list[int]:
        values = {"of_rows": row_ids, "claimed_by": self._instance}
        return list(work.connection.execute(CLAIM, values).scalars())

    def _read(self, row_ids: list[int]) -> list[OutgoingEvent]:
        with self._store.reading() as connection:
            return [
                OutgoingEvent(
                    event_id=row.event_id,
                    operation_id=row.operation_id,
                    owner=self._owner,
                    event=_TYPES[row.type].model_validate_json(row.payload),
                    delay_s=row.delay_s,
                    tries=row.tries,
                    last_error=row.last_error,
                )
                for row in connection.execute(OUTGOING, {"of_rows": row_ids})
            ]

    async def mark_sent(self, outgoing: OutgoingEvent) -> OperationRecord | None:
        """Note that the broker has confirmed it; return the operation if that changed it."""
        # Who hears of it too late publishes it again, under the same id: that is no reason for a commit.
        return await self._transactions.change_together(_all_sent, outgoing, within_s=_MARK_WITHIN_S)

    async def mark_failed(self, outgoing: OutgoingEvent, error: str) -> None:
        """Note that it did not get through; in the operation's history too, unless that says so already.

        Whoever carries the owner may try it now: it may be only this process that cannot be heard.
        """

        def action(work: Work) -> None:
            self._update(work, outgoing, last_error=error, claimed_by=None, delay_s=0.0)
            if error != outgoing.last_error:
                self._note(work, outgoing, error)

        await self._transactions.change(action)

    async def set_aside(self, outgoing: OutgoingEvent, error: str) -> OperationRecord | None:
        """Give up what can never be sent; an operation whose request it is fails."""

        def action(work: Work) -> OperationRecord | None:
            self._update(work, outgoing, sent_at=work.now, last_error=error)
            operation = self._note(work, outgoing, error)
            if operation is None or not isinstance(outgoing.event, TrainingRequested):
                return None
            if operation.state.terminal or operation.attempt != outgoing.event.attempt:
                return operation
            cause = FailureCause.INTERNAL_ERROR
            return attempts.attempt_over(work, operation, cause, error, self._retries)

        return await self._transactions.change(action)

    def _update(self, work: Work, outgoing: OutgoingEvent, **values: object) -> None:
        work.connection.execute(UPDATE_OUTGOING, _tried(outgoing, **values))

    def _note(self, work: Work, outgoing: OutgoingEvent, error: str) -> OperationRecord | None:
        operation = work.operation(outgoing.operation_id)
        if operation is not None:
            what = f"{outgoing.event.type_name()} could not be published: {error}"
            work.note(operation, HistoryKind.PUBLISH_FAILED, what, attempt=outgoing.event.attempt)
        return operation


def _all_sent(work: Work, sent: Sequence[OutgoingEvent]) -> list[OperationRecord | None]:
    """Note of several events that the broker has confirmed them: a few statements, however many they are."""
    rows = [_tried(outgoing, sent_at=work.now, last_error=None) for outgoing in sent]
    work.connection.execute(UPDATE_OUTGOING, rows)
    requests = [outgoing for outgoing in sent if isinstance(outgoing.event, TrainingRequested)]
    if not requests:
        return [None] * len(sent)
    changed = dispatching.dispatched(
        work,
        {request.operation_id: request.event.attempt for request in requests},
        [request.operation for request in requests if request.operation is not None],
    )
    return [
        changed.get(outgoing.operation_id) if isinstance(outgoing.event, TrainingRequested) else None
        for outgoing in sent
    ]


def _tried(outgoing: OutgoingEvent, **values: object) -> dict[str, object]:
    return {"of_event": outgoing.event_id, "tries": outgoing.tries + 1, **values}
