"""What becomes of a request that no agent took: the decisions, each inside one transaction.

A request that is not the newest of its operation decides nothing: it was answered for, or taken, before.
"""

from ktrdr.backend.attempts import RetryPolicy, attempt_over
from ktrdr.backend.dispatching import dispatch
from ktrdr.backend.falling_back import fall_back, may_fall_back
from ktrdr.backend.fleet import read_agents, who_cannot, why_not_taken
from ktrdr.backend.instances import BROKER_OWNER
from ktrdr.backend.records import AgentRecord, HistoryKind, OperationRecord
from ktrdr.backend.states import State, Trigger
from ktrdr.backend.work import Work
from ktrdr.bus.dead_letters import DeathCause
from ktrdr.events import FailureCause, TrainingRequested
from ktrdr.events.message import header_text

_PAUSE_S = 30.0
"""Before a request goes out again that came back for another reason than that its time was over."""


def came_back(
    work: Work, request: TrainingRequested, event_id: str, reason: str, retries: RetryPolicy
) -> OperationRecord | None:
    """Decide about a request that the broker took out of its lane, for a reason as in `DeathCause`."""
    operation = work.operation(request.operation_id)
    if operation is None or not _is_awaited(work, operation, request.attempt, event_id):
        return operation
    fleet = _fleet(work, operation)
    cannot = who_cannot(fleet, request.lane, require_gpu=request.require_gpu)
    match reason:
        case DeathCause.DELIVERY_LIMIT if cannot:
            names = ", ".join(agent.agent_id for agent in cannot)
            story = f"attempt {request.attempt} was given back by agents that cannot run it: {names}"
            return _again(work, operation, story, retries, delay_s=_PAUSE_S)
        case DeathCause.DELIVERY_LIMIT:
            story = f"attempt {request.attempt} was given back, or killed who took it, too often"
            return _failed(work, operation, story, retries)
        case DeathCause.REJECTED:
            story = f"attempt {request.attempt} was rejected by an agent that could not read it"
            return _failed(work, operation, story, retries)
        case DeathCause.EXPIRED:
            story = _nobody(operation, fleet, request, request.accept_within_s)
            return _again(work, operation, story, retries)
        case _:
            story = f"attempt {request.attempt} came back: {header_text(reason)}"
            return _again(work, operation, story, retries, delay_s=_PAUSE_S)


def not_accepted(
    work: Work, operation_id: str, attempt: int, event_id: str, waited_s: float, retries: RetryPolicy
) -> OperationRecord | None:
    """Decide about a request that was not heard of again for so long: taken, perhaps, by who then died."""
    operation = work.operation(operation_id)
    if operation is None or not _is_awaited(work, operation, attempt, event_id):
        return operation
    request = work.request(operation_id)
    story = _nobody(operation, _fleet(work, operation), request, waited_s)
    return _again(work, operation, story, retries)


def _is_awaited(work: Work, operation: OperationRecord, attempt: int, event_id: str) -> bool:
    return (
        operation.state in (State.PENDING, State.QUEUED)
        and operation.attempt == attempt
        and work.newest_request(operation.operation_id) == event_id
    )


def _again(
    work: Work, operation: OperationRecord, story: str, retries: RetryPolicy, *, delay_s: float = 0.0
) -> OperationRecord:
    """Request the attempt again, which costs none, since none has begun; or have it run here."""
    if retries.refuge is not None and may_fall_back(work, operation, retries.refuge):
        return fall_back(work, operation, retries.refuge, story)
    after = f" in {delay_s:g} s" if delay_s else ""
    work.note(operation, HistoryKind.NOT_ACCEPTED, f"{story}; it is requested again{after}")
    operation = work.move(operation, Trigger.ACCEPT_DEADLINE_PASSED)
    dispatch(work, operation, delay_s=delay_s)
    return operation


def _failed(work: Work, operation: OperationRecord, story: str, retries: RetryPolicy) -> OperationRecord:
    work.note(operation, HistoryKind.ATTEMPT_FAILED, story)
    return attempt_over(work, operation, FailureCause.NOT_ACCEPTED, story, retries)


def _nobody(
    operation: OperationRecord, fleet: list[AgentRecord], request: TrainingRequested, waited_s: float
) -> str:
    story = f"nobody accepted attempt {operation.attempt} within {waited_s:g} s"
    if operation.owner != BROKER_OWNER:
        return story
    why = why_not_taken(fleet, request.lane, require_gpu=request.require_gpu)
    return f"{story}: {why}" if why else story


def _fleet(work: Work, operation: OperationRecord) -> list[AgentRecord]:
    return read_agents(work.connection, work.now) if operation.owner == BROKER_OWNER else []
