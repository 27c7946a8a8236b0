"""Getting the request of an attempt onto a bus, whichever process carries the operation."""

from collections.abc import Callable, Collection, Mapping

from sqlalchemy import Connection, delete, select, update

from ktrdr.backend.cancelling import end_cancelled_without_run
from ktrdr.backend.records import (
    HistoryKind,
    Idempotency,
    NewRequest,
    OperationRecord,
    Submission,
    SubmitTraining,
)
from ktrdr.backend.rows import operation_record, select_operations
from ktrdr.backend.states import State, Trigger
from ktrdr.backend.tables import operations, outbox
from ktrdr.backend.work import Work
from ktrdr.errors import IdempotencyError, NotRetryableError
from ktrdr.training.execution_mode_selector import Place

LOCAL_LANE = "any"
"""What an agent serves that is in a process of the backend."""
_UNFINISHED = [state for state in State if not state.terminal]
_ENDED = {State.FAILED: "failed", State.CANCELLED: "was cancelled"}


def submit(
    work: Work, wish: SubmitTraining, request: NewRequest, max_attempts: int, instance: str
) -> OperationRecord:
    """Record a new operation with the request of its first attempt.

    Raises:
        OperationNotFoundError: it repeats one that is not there any more.
        NotRetryableError: it repeats one that has made a model, or has not ended.
    """
    operation = OperationRecord(
        operation_id=request.event.operation_id,
        state=State.PENDING,
        revision=0,
        attempt=request.event.attempt,
        max_attempts=max_attempts,
        strategy=wish.strategy.name,
        symbol=wish.symbol,
        timeframe=wish.timeframe,
        seed=wish.seed,
        created_at=work.now,
        updated_at=work.now,
        owner=instance,
        mode=wish.decision.mode if wish.decision is not None else None,
        place=wish.decision.where if wish.decision is not None else None,
        place_reason=wish.decision.reason if wish.decision is not None else None,
        retry_of=wish.retry_of,
    )
    work.add(
        operation,
        request.json,
        submitted_by=instance,
        fingerprint=wish.fingerprint,
        idempotency=wish.idempotency,
    )
    work.note(operation, HistoryKind.SUBMITTED, request.event.summary())
    if wish.retry_of is not None:
        _link(work, operation, wish.retry_of)
    if wish.decision is not None:
        kind = HistoryKind.FELL_BACK if wish.decision.is_fallback else HistoryKind.DECIDED
        work.note(operation, kind, f"{wish.decision.where}: {wish.decision.reason}")
    work.send_new(request, operation, owner=instance)
    return operation


def check_retryable(operation: OperationRecord) -> None:
    """Check that an operation may be repeated.

    Raises:
        NotRetryableError: it has made a model, or has not ended.
    """
    if operation.state not in (State.FAILED, State.CANCELLED):
        completed = operation.state is State.COMPLETED
        raise NotRetryableError(
            f"Operation {operation.operation_id} is {operation.state}: only what has failed or was cancelled "
            "is repeated.",
            fix="Start another training in place of it." if completed else "Wait for its end, or cancel it.",
        )


def submitted_as(connection: Connection, idempotency: Idempotency) -> Submission | None:
    """Return what was submitted under that key.

    Raises:
        IdempotencyError: what was asked for under it is something else.
    """
    query = (
        select_operations()
        .add_columns(operations.c.preparation)
        .where(operations.c.idempotency_key == idempotency.key)
    )
    row = connection.execute(query).one_or_none()
    if row is None:
        return None
    if row.wish_sha256 != idempotency.wish_sha256:
        raise IdempotencyError(
            f"The idempotency key '{idempotency.key}' is that of {row.id}, which was another request.",
            fix="Use a new key for a new request.",
        )
    return Submission(operation_record(row), resumed=False, repeated=True, preparation=row.preparation)


def resume(
    work: Work, fingerprint: str, max_attempts: int, instance: str, is_gone: Callable[[str], bool]
) -> OperationRecord | None:
    """Return an unfinished operation of that fingerprint whose submitter is gone, now this instance's.

    It stays with the process that carries it, if another has taken it over meanwhile. Its attempts are
    counted anew: who asks again wants it tried, however often it has been interrupted.
    """
    query = (
        select(operations.c.id, operations.c.submitted_by)
        .where(operations.c.fingerprint == fingerprint)
        .where(operations.c.state.in_([State.PENDING, State.QUEUED, State.RUNNING]))
        .order_by(operations.c.created_at)
    )
    for operation_id, submitted_by in work.connection.execute(query).all():
        if submitted_by == instance or not is_gone(submitted_by):
            continue
        operation = work.operation(operation_id)
        assert operation is not None
        work.note(operation, HistoryKind.RESUMED, "asked for again")
        begun = operation.attempt if operation.state is State.RUNNING else operation.attempt - 1
        limit = max(operation.max_attempts, begun + max_attempts)
        operation = work.change(operation, submitted_by=instance, max_attempts=limit)
        if operation.owner is None or is_gone(operation.owner):
            operation = take_over(work, operation, instance)
        return operation
    return None


def dispatch(work: Work, operation: OperationRecord, *, delay_s: float = 0.0) -> None:
    """Have the request of the current attempt published, in place of any that is not published yet."""
    work.withdraw_requests(operation.operation_id)
    request = work.request(operation.operation_id).model_copy(
        update={
            "attempt": operation.attempt,
            "requested_at": work.now,
            "resume_from": work.checkpoint(operation.operation_id),
            # An agent beside the backend serves no other.
            **({"lane": LOCAL_LANE} if operation.place is Place.LOCAL else {}),
        }
    )
    work.send(request, owner=operation.owner, delay_s=delay_s)


def dispatched(
    work: Work, attempts: Mapping[str, int], known: Collection[OperationRecord] = ()
) -> dict[str, OperationRecord]:
    """Note that the broker has the requests of some operations.

    Args:
        work: the transaction.
        attempts: operation → the attempt that was requested.
        known: the operations as they were before, of which those that did not change are not read again.

    Returns:
        Each operation that there is, by its id.
    """
    operations = {each.operation_id: each for each in work.operations(list(attempts), known)}
    waiting: list[OperationRecord] = []
    for operation in operations.values():
        attempt = attempts[operation.operation_id]
        if operation.state.terminal or operation.attempt != attempt:
            continue
        work.note(operation, HistoryKind.DISPATCHED, f"attempt {attempt} is on the bus")
        # Also of one that is queued: others see by its revision that there is something new to wait for.
        if operation.state in (State.PENDING, State.QUEUED):
            waiting.append(operation)
    moved = work.dispatch_all(waiting) if waiting else []
    return operations | {operation.operation_id: operation for operation in moved}


def take_over(work: Work, operation: OperationRecord, instance: str) -> OperationRecord:
    """Carry on here what a process that is gone has left; what ran there may yet be reported by its agent."""
    work.note(
        operation, HistoryKind.TAKEN_OVER, "the process that carried it is gone; another goes on with it"
    )
    if operation.state is State.CANCELLING:
        return end_cancelled_without_run(work, operation)
    operation = work.move(operation, Trigger.TAKEN_OVER, owner=instance)
    if operation.state is State.PENDING:
        dispatch(work, operation)
    return operation


def release(work: Work, instance: str) -> None:
    """Leave what is unfinished to others; what was to be said on this bus is not said any more."""
    work.connection.execute(
        update(operations)
        .where(operations.c.owner == instance, operations.c.state.in_(_UNFINISHED))
        .values(owner=None, revision=operations.c.revision + 1, updated_at=work.now)
    )
    forget_unsent(work, instance)


def free_claims(work: Work, instance: str) -> None:
    """Leave to others what an instance was to publish, and has not."""
    claimed = (outbox.c.claimed_by == instance, outbox.c.sent_at.is_(None))
    work.connection.execute(update(outbox).where(*claimed).values(claimed_by=None))


def forget_unsent(work: Work, instance: str) -> None:
    """Drop what an instance that is gone did not publish: its bus, and who listened there, are gone too."""
    work.connection.execute(delete(outbox).where(outbox.c.owner == instance, outbox.c.sent_at.is_(None)))


def _link(work: Work, operation: OperationRecord, retry_of: str) -> None:
    """Have both histories tell of each other."""
    original = work.existing_operation(retry_of)
    check_retryable(original)
    work.note(original, HistoryKind.RETRIED, f"repeated as {operation.operation_id}")
    work.note(operation, HistoryKind.RETRIED, f"repeats {retry_of}, which {_ENDED[original.state]}")
