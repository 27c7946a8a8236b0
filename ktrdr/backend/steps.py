"""The steps of an operation, as the backend takes them, in its log."""

from collections import OrderedDict
from dataclasses import dataclass

import structlog

from ktrdr.backend.records import OperationRecord
from ktrdr.backend.states import State
from ktrdr.logs.steps import NumberedStep

_REMEMBERED = 10_000
"""Operations that have not ended."""
_REMEMBERED_ENDED = 500
"""Others: of these nothing more is logged, and what is heard of them late is soon heard."""

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


@dataclass(frozen=True, slots=True)
class _Position:
    revision: int
    attempt: int
    number: int


class StepLog:
    """Logs each step of each operation once; further attempts begin with the second."""

    def __init__(self) -> None:
        self._last: OrderedDict[str, _Position] = OrderedDict()
        self._ended: OrderedDict[str, _Position] = OrderedDict()

    def follow(self, operation: OperationRecord) -> None:
        """Log where the operation is, if that is news."""
        step = _STEPS.get(operation.state)
        last = self._last.get(operation.operation_id) or self._ended.get(operation.operation_id)
        if step is None or (last is not None and operation.revision <= last.revision):
            return
        if last is None:
            before = step.number - 1  # as after a restart: what went before is in another log
        else:
            before = last.number if last.attempt == operation.attempt else BackendStep.RECORD.number
        self._remember(operation, max(step.number, before))
        with structlog.contextvars.bound_contextvars(**_about(operation)):
            # An agent may be quicker than the note that it was asked.
            if operation.state in (State.RUNNING, State.COMPLETED):
                for passed in BackendStep:
                    if before < passed.number < step.number:
                        _log.info(passed.step)
            if before < step.number:
                log = _log.warning if operation.state is State.FAILED else _log.info
                log(step.step, **_details(operation))

    def _remember(self, operation: OperationRecord, number: int) -> None:
        self._last.pop(operation.operation_id, None)
        self._ended.pop(operation.operation_id, None)
        ended = operation.state.terminal
        remembered, most = (self._ended, _REMEMBERED_ENDED) if ended else (self._last, _REMEMBERED)
        remembered[operation.operation_id] = _Position(operation.revision, operation.attempt, number)
        if len(remembered) > most:
            remembered.popitem(last=False)


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
