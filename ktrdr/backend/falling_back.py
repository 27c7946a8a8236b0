"""From hosts to here: what was to run on a host agent runs beside the backend, once that is the better way.

The attempt that follows has a number of its own. So a host that comes back with an earlier one is told to
stop, or goes on and may still be first with a model, by the same rules as after any other silence.
"""

from dataclasses import dataclass

from ktrdr.backend.dispatching import dispatch
from ktrdr.backend.fleet import read_agents, who_could_take
from ktrdr.backend.records import HistoryKind, OperationRecord
from ktrdr.backend.states import State, Trigger
from ktrdr.backend.work import Work
from ktrdr.events import FailureCause
from ktrdr.training.execution_mode_selector import Place


@dataclass(frozen=True, slots=True)
class Refuge:
    """Where it can run if not on a host."""

    instance: str
    """The backend of the agent that is there."""
    max_attempts: int
    """Of each operation that falls back."""


def may_fall_back(work: Work, operation: OperationRecord, refuge: Refuge | None) -> bool:
    """Return whether an operation may run in the refuge instead of on a host.

    It may if that was decided when it was accepted, with a mode that allows it, and it requires no GPU.
    """
    if refuge is None or operation.owner == refuge.instance or operation.place is not Place.HOST:
        return False
    if operation.state.terminal or operation.state is State.CANCELLING:
        return False
    return not work.request(operation.operation_id).require_gpu


def is_nobody_there(work: Work, operation: OperationRecord) -> bool:
    """Return whether no host agent, free or busy, could take another attempt now."""
    request = work.request(operation.operation_id)
    fleet = read_agents(work.connection, work.now)
    return not who_could_take(fleet, request.lane, require_gpu=request.require_gpu)


def should_fall_back(
    work: Work, operation: OperationRecord, cause: FailureCause, refuge: Refuge | None, *, exhausted: bool
) -> bool:
    """Return whether an attempt on a host that has ended without a model is followed by one here.

    What the training may have done to its host itself is not to be done to the backend's machine too.
    """
    if not cause.is_of_infrastructure or not may_fall_back(work, operation, refuge):
        return False
    return exhausted or is_nobody_there(work, operation)


def fall_back(work: Work, operation: OperationRecord, refuge: Refuge, story: str) -> OperationRecord:
    """Have the operation run in the refuge, from its newest checkpoint if there is one.

    Args:
        work: the transaction.
        operation: as it is; see `may_fall_back`.
        refuge: where.
        story: why, in words.
    """
    attempt = work.next_attempt(operation)
    work.withdraw_requests(operation.operation_id)
    operation = work.move(
        operation,
        Trigger.FELL_BACK,
        owner=refuge.instance,
        place=Place.LOCAL,
        place_reason=f"it was to run on a host, but {story}",
        attempt=attempt,
        max_attempts=max(operation.max_attempts, attempt - 1 + refuge.max_attempts),
        message=f"{story}; it runs beside the backend instead",
        claim_id=None,
        agent_id=None,
        device=None,
        lease_s=None,
    )
    work.note(operation, HistoryKind.FELL_BACK, f"{story}; attempt {attempt} runs beside the backend")
    dispatch(work, operation)
    return operation
