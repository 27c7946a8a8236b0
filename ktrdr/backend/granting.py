"""Who holds an attempt: the decisions, each inside one transaction.

An attempt is granted to the first claim that is heard of; events of other claims change nothing.
"""

from ktrdr.backend.cancelling import tell_to_stop, why_unwanted
from ktrdr.backend.placing import placed_here
from ktrdr.backend.records import HistoryKind, OperationRecord
from ktrdr.backend.states import State, Trigger
from ktrdr.backend.work import Claim, Work
from ktrdr.events import TrainingAccepted

_LONGEST_LEASE_S = 3600.0


def accepted(work: Work, event: TrainingAccepted, *, first: bool) -> OperationRecord | None:
    """Grant the attempt to the claim, or tell it to stop; the latter also if the event comes again."""
    operation = work.operation(event.operation_id)
    if operation is not None and _has_made_the_model(operation, event):
        return operation  # that was heard first, by another backend perhaps
    unwanted = why_unwanted(work, operation, event)
    if operation is None or unwanted is not None:
        tell_to_stop(work, event, unwanted or "it is not known here")
        if operation is not None and first:
            refusal = f"{event.agent_id} was told to stop: {unwanted}"
            work.note(
                operation, HistoryKind.CLAIM_REFUSED, refusal, attempt=event.attempt, agent_id=event.agent_id
            )
        return operation
    if operation.claim_id is None and operation.attempt == event.attempt:
        where = f"slot {event.slot} of {event.agent_id}, on {event.device}"
        return _grant(work, operation, event, event.agent_id, event.device, event.lease_s, where)
    return heard(work, event, agent_id=event.agent_id, device=event.device, lease_s=event.lease_s)


def heard(work: Work, claim: Claim, *, agent_id: str, device: str, lease_s: float) -> OperationRecord | None:
    """Grant the operation to a claim that is evidently at work on it, while nobody else holds it.

    Either its acceptance has not arrived, or its lease had expired, and the attempt that was to follow has
    not been accepted by anyone: then no work is thrown away.
    """
    operation = work.operation(claim.operation_id)
    if operation is None or operation.claim_id is not None:
        return operation
    if operation.state not in (State.PENDING, State.QUEUED):
        return operation
    if operation.attempt == claim.attempt:
        where = f"{agent_id}, which is at work on it"
        return _grant(work, operation, claim, agent_id, device, lease_s, where)
    if claim.attempt < operation.attempt and (runs_on := work.device_of_run(claim)) is not None:
        return _grant_again(work, operation, claim, agent_id, runs_on, lease_s)
    return operation


def _has_made_the_model(operation: OperationRecord, claim: Claim) -> bool:
    return operation.state is State.COMPLETED and operation.claim_id == claim.claim_id


def _grant(
    work: Work,
    operation: OperationRecord,
    claim: Claim,
    agent_id: str,
    device: str,
    lease_s: float,
    where: str,
) -> OperationRecord:
    work.grant(claim, agent_id=agent_id, device=device)
    work.note(operation, HistoryKind.ACCEPTED, f"accepted by {where}", agent_id=agent_id)
    return work.move(
        operation,
        Trigger.ACCEPTED,
        claim_id=claim.claim_id,
        agent_id=agent_id,
        device=device,
        lease_s=min(lease_s, _LONGEST_LEASE_S),
        started_at=operation.started_at or work.now,
    )


def _grant_again(
    work: Work, operation: OperationRecord, claim: Claim, agent_id: str, device: str, lease_s: float
) -> OperationRecord:
    work.withdraw_requests(operation.operation_id)
    # Its request may be in a lane: whoever takes it there finds the attempt taken, now and for ever.
    work.void_attempt(operation.operation_id, operation.attempt)
    story = f"{agent_id} is back, still at work on attempt {claim.attempt}"
    work.note(
        operation,
        HistoryKind.RECONCILED,
        f"{story}; attempt {operation.attempt} is not needed",
        attempt=claim.attempt,
        agent_id=agent_id,
    )
    return work.move(
        operation,
        Trigger.RECONCILED,
        attempt=claim.attempt,
        # It is heard on this bus, wherever another attempt was to be made.
        owner=work.owner or operation.owner,
        **placed_here(work, operation, story),
        # A silence costs no attempt when the run turns out to have gone on.
        max_attempts=operation.max_attempts + 1,
        message=None,
        claim_id=claim.claim_id,
        agent_id=agent_id,
        device=device,
        lease_s=min(lease_s, _LONGEST_LEASE_S),
    )
