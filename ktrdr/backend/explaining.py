"""Why an operation does not run yet, in words for people."""

from datetime import datetime

from sqlalchemy import Connection, select

from ktrdr.backend.fleet import read_agents, why_not_taken
from ktrdr.backend.instances import BROKER_OWNER
from ktrdr.backend.records import AgentRecord, AgentStatus, OperationRecord
from ktrdr.backend.states import State
from ktrdr.backend.tables import operations, outbox
from ktrdr.events import TrainingRequested


def why_waiting(
    connection: Connection, operation: OperationRecord, now: datetime, *, is_carried: bool
) -> str:
    """Return what the operation waits for; empty if it runs, is about to, or has ended.

    Args:
        connection: to the database.
        operation: as it is.
        now: the moment for which it is asked.
        is_carried: whether a process that lives sees to it.
    """
    if operation.state.terminal:
        return ""
    by_broker = operation.owner == BROKER_OWNER
    if not is_carried and by_broker:
        return "no `ktrdr serve` runs, which would publish it and hear of it"
    if not is_carried:
        return "the process that carried it is gone; the next `ktrdr train` or `ktrdr work` goes on with it"
    fleet = read_agents(connection, now) if by_broker else []
    if operation.state in (State.RUNNING, State.CANCELLING):
        return _why_not_heard(operation, fleet, now)
    return _why_not_published(connection, operation, now) or _why_not_taken(connection, operation, fleet)


def _why_not_heard(operation: OperationRecord, fleet: list[AgentRecord], now: datetime) -> str:
    agent = next((agent for agent in fleet if agent.agent_id == operation.agent_id), None)
    if agent is None or agent.status is not AgentStatus.DETACHED:
        return ""
    silent_s = max(0.0, (now - agent.last_seen).total_seconds())
    return f"{agent.agent_id}, which runs it, was last heard of {silent_s:.0f} s ago; it may be training on"


def _why_not_published(connection: Connection, operation: OperationRecord, now: datetime) -> str:
    query = (
        select(outbox.c.last_error, outbox.c.delay_s, outbox.c.created_at)
        .where(outbox.c.operation_id == operation.operation_id, outbox.c.sent_at.is_(None))
        .where(outbox.c.type == TrainingRequested.type_name())
    )
    row = connection.execute(query).first()
    if row is None:
        return ""
    if row.last_error is not None:
        return f"its request cannot be published: {row.last_error}"
    left_s = row.delay_s - (now - row.created_at).total_seconds()
    if left_s > 0:
        return f"it pauses for {left_s:.0f} s more before attempt {operation.attempt}"
    return "its request is about to be published"


def _why_not_taken(connection: Connection, operation: OperationRecord, fleet: list[AgentRecord]) -> str:
    if operation.owner != BROKER_OWNER:
        return "it waits for a free slot in the process that carries it"
    query = select(operations.c.request).where(operations.c.id == operation.operation_id)
    request = TrainingRequested.model_validate_json(connection.execute(query).scalar_one())
    why = why_not_taken(fleet, request.lane, require_gpu=request.require_gpu)
    return why or f"an agent of lane {request.lane} is about to take it"
