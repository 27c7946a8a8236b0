"""What becomes of an operation as its attempts run and end: the decisions, each inside one transaction.

Every function may be called again with the same event: messages come twice, late and out of order.
"""

from dataclasses import dataclass

from ktrdr.backend.cancelling import end_cancelled, stop_runs
from ktrdr.backend.dispatching import dispatch
from ktrdr.backend.falling_back import Refuge, fall_back, should_fall_back
from ktrdr.backend.records import HistoryKind, OperationRecord
from ktrdr.backend.states import State, Trigger
from ktrdr.backend.work import Claim, Work
from ktrdr.events import CheckpointSaved, FailureCause, TrainingCancelled, TrainingFailed

_LONGEST_PAUSE_S = 300.0
# These say nothing about the job, and the process that died or left is replaced already.
_RETRIED_AT_ONCE = frozenset(
    {FailureCause.AGENT_RESTARTED, FailureCause.AGENT_SHUTDOWN, FailureCause.LEASE_EXPIRED}
)


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How it goes on when an attempt has ended without a model."""

    backoff_s: float
    """Before the second attempt; it doubles with each further one."""
    refuge: Refuge | None = None
    """Where it may go on if not on a host."""

    def pause_s(self, failed_attempt: int, cause: FailureCause) -> float:
        """Return the seconds between the failure of an attempt and the request of the next."""
        if cause in _RETRIED_AT_ONCE:
            return 0.0
        return min(self.backoff_s * 2.0 ** (failed_attempt - 1), _LONGEST_PAUSE_S)


def checkpoint_saved(work: Work, event: CheckpointSaved) -> OperationRecord | None:
    """Remember from where another attempt can go on."""
    operation = work.operation(event.operation_id)
    if operation is None or not is_current(operation, event):
        return operation
    message = f"checkpoint of epoch {event.epoch}"
    work.note(operation, HistoryKind.CHECKPOINT_SAVED, message, agent_id=event.agent_id)
    return work.change(operation, checkpoint=event.checkpoint.model_dump_json())


def attempt_failed(work: Work, event: TrainingFailed, retries: RetryPolicy) -> OperationRecord | None:
    """Retry or fail the operation, if it is the current attempt's run that failed."""
    operation = work.operation(event.operation_id)
    if operation is None:
        return None
    story = f"{event.cause}: {event.message}"
    work.end_attempt(event, story)
    work.note(operation, HistoryKind.ATTEMPT_FAILED, story, attempt=event.attempt, agent_id=event.agent_id)
    if not is_current(operation, event):
        return operation
    # An agent that is stopped, by a person or for an upgrade, says nothing about the job.
    costs = event.cause is not FailureCause.AGENT_SHUTDOWN
    return attempt_over(work, operation, event.cause, event.message, retries, costs=costs)


def attempt_cancelled(work: Work, event: TrainingCancelled, retries: RetryPolicy) -> OperationRecord | None:
    """End the operation if it was to be cancelled; otherwise the attempt was lost, and is made again."""
    operation = work.operation(event.operation_id)
    if operation is None:
        return None
    work.end_attempt(event, f"cancelled after {event.epoch} epochs")
    if not is_current(operation, event):
        return operation
    if operation.state is State.CANCELLING:
        return end_cancelled(work, operation, Trigger.RUN_CANCELLED, f"stopped after {event.epoch} epochs")
    message = f"{event.agent_id} stopped the attempt after {event.epoch} epochs without being asked"
    work.note(operation, HistoryKind.ATTEMPT_FAILED, message, agent_id=event.agent_id)
    return attempt_over(work, operation, FailureCause.AGENT_SHUTDOWN, message, retries)


def is_current(operation: OperationRecord, claim: Claim) -> bool:
    """Return whether what the claim says decides about the operation."""
    return (
        not operation.state.terminal
        and claim.attempt == operation.attempt
        and operation.claim_id in (None, claim.claim_id)
    )


def lease_expired(
    work: Work, operation_id: str, attempt: int, claim_id: str, lease_s: float, retries: RetryPolicy
) -> OperationRecord | None:
    """Give the attempt up, if that claim still has the grant; its run may go on and still win.

    Whoever has the operation at this moment may be hearing of the claim, or giving it up: then it is left.
    """
    operation = work.operation_if_free(operation_id)
    if operation is None or operation.state.terminal:
        return operation
    if operation.attempt != attempt or operation.claim_id != claim_id:
        return operation
    reason = f"nothing was heard of {operation.agent_id} for {lease_s:g} s"
    work.note(operation, HistoryKind.LEASE_EXPIRED, reason, agent_id=operation.agent_id)
    return attempt_over(
        work, operation, FailureCause.LEASE_EXPIRED, reason, retries, trigger=Trigger.LEASE_EXPIRED
    )


def attempt_over(
    work: Work,
    operation: OperationRecord,
    cause: FailureCause,
    message: str,
    retries: RetryPolicy,
    *,
    trigger: Trigger = Trigger.ATTEMPT_FAILED_RETRYABLE,
    costs: bool = True,
) -> OperationRecord:
    """Decide what follows when the current attempt ends without a model.

    Args:
        work: the transaction.
        operation: as it is.
        cause: why the attempt ended.
        message: likewise, for people.
        retries: how long to wait before another.
        trigger: of the transition, if it is tried again.
        costs: whether this is one of the attempts that the operation is allowed.
    """
    if operation.state is State.CANCELLING:
        return end_cancelled(work, operation, trigger, f"the run had ended already: {message}")
    if not cause.retryable:
        return _fail(work, operation, Trigger.ATTEMPT_FAILED, cause, message)
    max_attempts = operation.max_attempts if costs else operation.max_attempts + 1
    following = work.next_attempt(operation)
    exhausted = following > max_attempts
    if retries.refuge is not None and should_fall_back(
        work, operation, cause, retries.refuge, exhausted=exhausted
    ):
        return fall_back(work, operation, retries.refuge, message)
    if exhausted:
        last = f"{message} (attempt {operation.attempt} of {operation.max_attempts})"
        return _fail(work, operation, Trigger.ATTEMPTS_EXHAUSTED, cause, last)
    pause_s = retries.pause_s(operation.attempt, cause)
    operation = work.move(
        operation,
        trigger,
        attempt=following,
        max_attempts=max_attempts,
        message=message,
        claim_id=None,
        agent_id=None,
        device=None,
        lease_s=None,
    )
    after = f" in {pause_s:g} s" if pause_s else ""
    work.note(operation, HistoryKind.RETRY, f"attempt {operation.attempt} follows{after}")
    dispatch(work, operation, delay_s=pause_s)
    return operation


def _fail(
    work: Work, operation: OperationRecord, trigger: Trigger, cause: FailureCause, message: str
) -> OperationRecord:
    operation = work.move(operation, trigger, cause=cause, message=message)
    work.note(operation, HistoryKind.FAILED, f"{cause}: {message}", agent_id=operation.agent_id)
    stop_runs(work, operation)
    return operation
