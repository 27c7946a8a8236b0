"""Stopping: an operation on request, and runs that are not wanted, each time they speak."""

from collections.abc import Callable

from ktrdr.backend.records import HistoryKind, OperationRecord
from ktrdr.backend.states import State, Trigger
from ktrdr.backend.work import Claim, Work
from ktrdr.events import CancelRequested

STOPPED = frozenset({State.CANCELLING, State.CANCELLED})
"""The states of what is being stopped, or was."""

_RUN_GONE = "its run ended with the process that ran it"


def cancel(work: Work, operation_id: str, reason: str, is_gone: Callable[[str], bool]) -> OperationRecord:
    """Stop the operation; one that has ended stays as it is.

    Raises:
        OperationNotFoundError: there is none of that id.
    """
    operation = work.existing_operation(operation_id)
    if operation.state.terminal:
        return operation
    if operation.owner is not None and is_gone(operation.owner):
        operation = work.change(operation, owner=None)
    if operation.state is not State.CANCELLING:
        work.note(operation, HistoryKind.CANCEL_REQUESTED, reason)
        operation = work.move(operation, Trigger.CANCEL_REQUESTED, cancel_reason=reason, message=None)
    if operation.state is State.CANCELLED:
        work.note(operation, HistoryKind.CANCELLED, "it had not begun to run")
    elif operation.owner is None:
        return end_cancelled(work, operation, Trigger.TAKEN_OVER, _RUN_GONE)
    _tell_all_to_stop(work, operation, reason)
    return operation


def end_cancelled(work: Work, operation: OperationRecord, trigger: Trigger, how: str) -> OperationRecord:
    """End an operation that is being cancelled."""
    operation = work.move(operation, trigger)
    work.note(operation, HistoryKind.CANCELLED, how, agent_id=operation.agent_id)
    stop_runs(work, operation)
    return operation


def end_cancelled_without_run(work: Work, operation: OperationRecord) -> OperationRecord:
    """End an operation that was being cancelled by a process that is gone, and its runner with it."""
    return end_cancelled(work, operation, Trigger.TAKEN_OVER, _RUN_GONE)


def stop_runs(work: Work, operation: OperationRecord) -> None:
    """Tell every claim whose run may still be going on that the operation has ended."""
    for attempt, claim_id in work.running_claims(operation.operation_id):
        _send_stop(work, operation, attempt, claim_id, f"the operation is {operation.state}")


def _tell_all_to_stop(work: Work, operation: OperationRecord, reason: str) -> None:
    # Every claim of the current attempt: one may have taken the request without our knowing yet.
    running = {attempt for attempt, _ in work.running_claims(operation.operation_id)}
    for attempt in sorted(running | {operation.attempt}):
        _send_stop(work, operation, attempt, None, reason)


def _send_stop(
    work: Work, operation: OperationRecord, attempt: int, claim_id: str | None, reason: str
) -> None:
    stop = CancelRequested(
        operation_id=operation.operation_id, attempt=attempt, claim_id=claim_id, reason=reason
    )
    work.send(stop, owner=operation.owner)


def why_unwanted(work: Work, operation: OperationRecord | None, claim: Claim) -> str | None:
    """Return why a claim should not run its attempt, or None if it may."""
    if operation is None:
        return "this backend knows no such operation"
    if operation.state.terminal:
        return f"the operation is {operation.state}"
    if operation.state is State.CANCELLING:
        return "the operation is being cancelled"
    if claim.attempt > operation.attempt:
        return f"attempt {claim.attempt} is not asked for"
    if claim.attempt == operation.attempt and operation.claim_id in (None, claim.claim_id):
        return None
    holder = work.holder(claim.operation_id, claim.attempt)
    if holder == claim.claim_id:
        # Also of an earlier attempt: a run that was detached goes on, and the first valid model wins.
        return None
    if claim.attempt < operation.attempt:
        return f"attempt {operation.attempt} has superseded it"
    return None if holder is None else "another claim holds the attempt"


def tell_to_stop(work: Work, claim: Claim, reason: str) -> None:
    """Answer one claim, on this bus, that it is not wanted."""
    work.send(
        CancelRequested(
            operation_id=claim.operation_id, attempt=claim.attempt, claim_id=claim.claim_id, reason=reason
        )
    )
