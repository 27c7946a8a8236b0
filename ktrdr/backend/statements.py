"""The statements of each training's way, built once: building one costs five times as much as running it.

Parameters that are no bound parameter below name the columns to be set.
"""

from typing import Any

from sqlalchemy import BindParameter, Connection, bindparam, delete, func, insert, select, update
from sqlalchemy.dialects import postgresql, sqlite

from ktrdr.backend.rows import select_operations
from ktrdr.backend.states import State
from ktrdr.backend.tables import (
    attempts,
    inbox,
    models,
    operation_history,
    operation_log,
    operations,
    outbox,
)
from ktrdr.events import TrainingRequested

_REQUESTED = TrainingRequested.type_name()
_of_operation: BindParameter[str] = bindparam("of_operation")
_of_attempt: BindParameter[int] = bindparam("of_attempt")
_of_claim: BindParameter[str] = bindparam("of_claim")

OPERATION = select_operations().where(operations.c.id == _of_operation)
OPERATIONS = select_operations().where(operations.c.id.in_(bindparam("of_operations", expanding=True)))
OPERATION_AND_REQUEST = OPERATION.add_columns(operations.c.request)
LOCKED_OPERATION = OPERATION.with_for_update(of=operations)
FREE_OPERATION = OPERATION.with_for_update(of=operations, skip_locked=True)
# In one order for everybody, or two could wait for each other.
LOCKED_REVISIONS = (
    select(operations.c.id, operations.c.revision)
    .where(operations.c.id.in_(bindparam("of_operations", expanding=True)))
    .order_by(operations.c.id)
    .with_for_update()
)
ACTIVE = [state for state in State if not state.terminal]
_ACTIVE_OF_OWNER = (
    operations.c.state.in_(ACTIVE),
    operations.c.owner == bindparam("of_owner"),
)
ACTIVE_OF_OWNER = (
    select(operations.c.state, func.count()).where(*_ACTIVE_OF_OWNER).group_by(operations.c.state)
)
REVISIONS = select(operations.c.id, operations.c.revision).where(*_ACTIVE_OF_OWNER)
REQUEST = select(operations.c.request).where(operations.c.id == _of_operation)
CHECKPOINT = select(operations.c.checkpoint).where(operations.c.id == _of_operation)
INSERT_OPERATION = insert(operations)
CHANGE_OPERATION = update(operations).where(
    operations.c.id == _of_operation, operations.c.revision == bindparam("at_revision")
)

_ATTEMPT = (attempts.c.operation_id == _of_operation, attempts.c.attempt == _of_attempt)
INSERT_ATTEMPT = insert(attempts)
HOLDER = select(attempts.c.claim_id).where(*_ATTEMPT)
RUN = select(attempts.c.ended_at, attempts.c.device).where(*_ATTEMPT, attempts.c.claim_id == _of_claim)
END_ATTEMPT = update(attempts).where(
    *_ATTEMPT, attempts.c.claim_id == _of_claim, attempts.c.ended_at.is_(None)
)
NEWEST_ATTEMPT = select(func.max(attempts.c.attempt)).where(attempts.c.operation_id == _of_operation)
RUNNING_CLAIMS = (
    select(attempts.c.attempt, attempts.c.claim_id)
    .where(attempts.c.operation_id == _of_operation, attempts.c.ended_at.is_(None))
    .order_by(attempts.c.attempt)
)

INSERT_HISTORY = insert(operation_history)
INSERT_MODEL = insert(models)
MODEL_OF_OPERATION = select(models).where(models.c.operation_id == _of_operation)
NEWEST_VERSION = select(func.max(models.c.version)).where(
    models.c.strategy == bindparam("strategy"),
    models.c.symbol == bindparam("symbol"),
    models.c.timeframe == bindparam("timeframe"),
)

INSERT_OUTGOING = insert(outbox)
_UNSENT = (outbox.c.owner == bindparam("of_owner"), outbox.c.sent_at.is_(None))
UNSENT = (
    select(outbox.c.id, outbox.c.event_id, outbox.c.operation_id, outbox.c.delay_s, outbox.c.claimed_by)
    .where(*_UNSENT, outbox.c.id > bindparam("after"))
    .order_by(outbox.c.id)
    .limit(bindparam("at_most"))
)
UNCLAIMED = select(outbox.c.id).where(*_UNSENT, outbox.c.claimed_by.is_(None)).limit(1)
CLAIMANTS = select(outbox.c.claimed_by).where(*_UNSENT, outbox.c.claimed_by.is_not(None)).distinct()
# Whatever another is claiming at this moment is not waited for.
CLAIM = (
    update(outbox)
    .where(
        outbox.c.id.in_(
            select(outbox.c.id)
            .where(outbox.c.id.in_(bindparam("of_rows", expanding=True)))
            .where(outbox.c.sent_at.is_(None), outbox.c.claimed_by.is_(None))
            .with_for_update(skip_locked=True)
        )
    )
    .returning(outbox.c.id)
)
OUTGOING = (
    select(outbox)
    .where(outbox.c.id.in_(bindparam("of_rows", expanding=True)), outbox.c.sent_at.is_(None))
    .order_by(outbox.c.id)
)
UPDATE_OUTGOING = update(outbox).where(outbox.c.event_id == bindparam("of_event"))
NEWEST_REQUEST = (
    select(outbox.c.event_id)
    .where(outbox.c.operation_id == _of_operation, outbox.c.type == _REQUESTED)
    .order_by(outbox.c.id.desc())
    .limit(1)
)
REQUESTS_OF_QUEUED = (
    select(outbox.c.operation_id, outbox.c.event_id, outbox.c.sent_at)
    .where(outbox.c.operation_id.in_(bindparam("of_operations", expanding=True)))
    .where(outbox.c.type == _REQUESTED)
    .order_by(outbox.c.id)
)
WITHDRAW_REQUESTS = delete(outbox).where(
    outbox.c.operation_id == _of_operation, outbox.c.sent_at.is_(None), outbox.c.type == _REQUESTED
)

# What drivers count of an insertion, not all of them tell.
_INSERT_NEW = {
    "sqlite": sqlite.insert(inbox).on_conflict_do_nothing().returning(inbox.c.event_id),
    "postgresql": postgresql.insert(inbox).on_conflict_do_nothing().returning(inbox.c.event_id),
}


_INSERT_LINES = {
    "sqlite": sqlite.insert(operation_log).on_conflict_do_nothing(),
    "postgresql": postgresql.insert(operation_log).on_conflict_do_nothing(),
}


def insert_lines(connection: Connection, rows: list[dict[str, Any]]) -> None:
    """Add to the log of an operation; what another backend has added meanwhile stays."""
    connection.execute(_INSERT_LINES[connection.dialect.name], rows)


def insert_if_new(connection: Connection, **values: Any) -> bool:
    """Add to the inbox what is not in it; return whether it was not."""
    return connection.execute(_INSERT_NEW[connection.dialect.name], values).first() is not None
