"""The steps of an operation, as the backend takes them, in its log."""

from collections import OrderedDict

import structlog

from ktrdr.backend.records import OperationRecord
from ktrdr.backend.states import State
from ktrdr.logs.steps import NumberedStep

_REMEMBERED = 10_000

_log = structlog.get_logger()


class BackendStep(NumberedStep):
    """What the backend does for an operation, the same in every mode."""

    RECORD = (1, "Recording the training")
    ASK = (2, "Asking for an agent")
    WAIT = (3, "Waiting for the model")
    CLOSE = (4, "Closing the operation")


_STEPS = {
    State.PENDING: BackendStep.RECORD,
    State.QUEUED: BackendStep.ASK,
    State.RUNNING: BackendStep.WAIT,
    State.COMPLETED: BackendStep.CLOSE,
    State.FAILED: BackendStep.CLOSE,
    State.CANCELLED: BackendStep.CLOSE,
}


class StepLog:
    """Logs each step of each operation once; each attempt has its own."""

    def __init__(self) -> None:
        self._last: OrderedDict[str, tuple[int, BackendStep]] = OrderedDict()

    def follow(self, operation: OperationRecord) -> None:
        """Log where the operation is, if that is news."""
        step = _STEPS.get(operation.state)
        if step is None or self._last.get(operation.operation_id) == (operation.attempt, step):
            return
        self._last[operation.operation_id] = (operation.attempt, step)
        self._last.move_to_end(operation.operation_id)
        if len(self._last) > _REMEMBERED:
            self._last.popitem(last=False)
        # As after a restart nobody knows what an operation did before, a step may be left out.
        log = _log.warning if operation.state is State.FAILED else _log.info
        with structlog.contextvars.bound_contextvars(**_about(operation)):
            log(step.step, **_details(operation))


def _about(operation: OperationRecord) -> dict[str, object]:
    agent = {"agent": operation.agent_id} if operation.agent_id is not None else {}
    return {"operation_id": operation.operation_id, "attempt": operation.attempt, **agent}


def _details(operation: OperationRecord) -> dict[str, object]:
    match operation.state:
        case State.PENDING if operation.place is not None:
            return {"strategy": operation.strategy, "where": operation.place.value}
        case State.PENDING:
            return {"strategy": operation.strategy}
        case State.RUNNING:
            return {"device": operation.device}
        case State.COMPLETED:
            return {"result": operation.state.value, "model": operation.model}
        case State.FAILED:
            cause = operation.cause.value if operation.cause is not None else None
            return {"result": operation.state.value, "cause": cause, "reason": operation.message}
        case State.CANCELLED:
            return {"result": operation.state.value, "reason": operation.message}
        case _:
            return {}
