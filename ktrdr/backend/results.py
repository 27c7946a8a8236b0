"""What becomes of an operation when one of its attempts has made a model: the decisions, in a transaction."""

from dataclasses import replace

from ktrdr.backend.attempts import RetryPolicy, attempt_over, is_current
from ktrdr.backend.cancelling import end_cancelled, stop_runs
from ktrdr.backend.placing import placed_here
from ktrdr.backend.records import HistoryKind, OperationRecord
from ktrdr.backend.statements import MODEL_OF_OPERATION
from ktrdr.backend.states import State, Trigger
from ktrdr.backend.work import Work
from ktrdr.events import FailureCause, ModelDiscarded, ModelPersisted, ModelReady


def is_wanted(operation: OperationRecord) -> bool:
    """Return whether a model would be taken; the first valid one is, whichever attempt made it."""
    return not operation.state.terminal and operation.state is not State.CANCELLING


def complete(
    work: Work, event: ModelReady, event_id: str, operation: OperationRecord, *, name: str, version: int
) -> OperationRecord:
    """End the operation with the model that is registered for it in this transaction, under that name."""
    work.first_time(event_id, event)
    work.end_attempt(event, "made the model")
    operation = work.move(
        operation,
        Trigger.MODEL_PERSISTED,
        message=None,
        claim_id=event.claim_id,
        agent_id=event.agent_id,
        started_at=operation.started_at or work.now,
        **placed_here(work, operation, f"the run of {event.agent_id} was the first with a model"),
    )
    work.note(operation, HistoryKind.MODEL_PERSISTED, name, attempt=event.attempt, agent_id=event.agent_id)
    _send_persisted(work, event, name, version)
    stop_runs(work, operation)
    return replace(operation, model=name, metrics=event.manifest.metrics)


def decline(work: Work, event: ModelReady) -> OperationRecord | None:
    """Answer a result that is not wanted any more, or is persisted already: each time it comes."""
    operation = work.operation(event.operation_id)
    if operation is None:
        _answer_discarded(work, event, "this backend knows no such operation")
        return None
    work.end_attempt(event, "made a model")
    if operation.state is State.COMPLETED and _answer_persisted(work, event):
        return operation
    if operation.state is State.CANCELLING:
        _answer_discarded(work, event, "the operation is being cancelled")
        if is_current(operation, event):
            how = "its model came after the cancellation and was discarded"
            operation = end_cancelled(work, operation, Trigger.MODEL_DISCARDED, how)
        return operation
    first = f"; its model is {operation.model}" if operation.model else ""
    _answer_discarded(work, event, f"the operation is {operation.state}{first}")
    return operation


def reject(
    work: Work, event: ModelReady, event_id: str, reason: str, retries: RetryPolicy
) -> OperationRecord | None:
    """Discard a result that is not what it should be, and try again if the current attempt sent it."""
    operation = work.operation(event.operation_id)
    if operation is None or not is_wanted(operation):
        return decline(work, event)
    _answer_discarded(work, event, reason)
    if not work.first_time(event_id, event):
        return operation
    work.end_attempt(event, f"{FailureCause.RESULT_REJECTED}: {reason}")
    work.note(operation, HistoryKind.RESULT_REJECTED, reason, attempt=event.attempt, agent_id=event.agent_id)
    if not is_current(operation, event):
        return operation
    message = f"The result was rejected. {reason}"
    return attempt_over(work, operation, FailureCause.RESULT_REJECTED, message, retries)


def _answer_persisted(work: Work, event: ModelReady) -> bool:
    """Answer that the model is safe, if it is this one."""
    found = work.connection.execute(MODEL_OF_OPERATION, {"of_operation": event.operation_id})
    row = found.one_or_none()
    if row is None or row.bundle_sha256 != event.manifest.bundle_sha256:
        return False
    _send_persisted(work, event, row.path, row.version)
    return True


def _send_persisted(work: Work, event: ModelReady, name: str, version: int) -> None:
    work.send(
        ModelPersisted(
            operation_id=event.operation_id,
            attempt=event.attempt,
            claim_id=event.claim_id,
            model=name,
            model_version=version,
            bundle_sha256=event.manifest.bundle_sha256,
        )
    )


def _answer_discarded(work: Work, event: ModelReady, reason: str) -> None:
    work.send(
        ModelDiscarded(
            operation_id=event.operation_id, attempt=event.attempt, claim_id=event.claim_id, reason=reason
        )
    )
