"""Forgetting what nobody will ask for again, so that a backend can run for years."""

from datetime import timedelta

from sqlalchemy import delete, or_, select

from ktrdr.backend.instances import Registry
from ktrdr.backend.store import OperationStore
from ktrdr.backend.tables import inbox, instances, operation_log, operations, outbox
from ktrdr.backend.work import Work

_KEEP_MAIL = timedelta(days=1)
"""After the end of its operation. A result that comes again still later is answered without the inbox."""
_KEEP_INSTANCES = timedelta(days=30)
_KEEP_LOGS = timedelta(days=30)
"""After the end of its operation."""
_AT_ONCE = 1000
"""Rows in one transaction: others want to write too."""


def tidy(store: OperationStore) -> int:
    """Delete old mail and logs of operations that have ended, and old instances; return how many. Blocks.

    The history of operations, and their models, are kept.
    """
    total = store.change(lambda work: _forget_instances(work, store.instances))
    for forget in (_forget_mail, _forget_logs):
        while (deleted := store.change(forget)) > 0:
            total += deleted
    return total


def _forget_mail(work: Work) -> int:
    before = work.now - _KEEP_MAIL
    is_over = or_(operations.c.id.is_(None), operations.c.finished_at < before)
    sent = (
        select(outbox.c.id)
        .outerjoin(operations, operations.c.id == outbox.c.operation_id)
        .where(outbox.c.sent_at < before, is_over)
        .limit(_AT_ONCE)
    )
    received = (
        select(inbox.c.event_id)
        .outerjoin(operations, operations.c.id == inbox.c.operation_id)
        .where(inbox.c.received_at < before, is_over)
        .limit(_AT_ONCE)
    )
    return (
        work.connection.execute(delete(outbox).where(outbox.c.id.in_(sent))).rowcount
        + work.connection.execute(delete(inbox).where(inbox.c.event_id.in_(received))).rowcount
    )


def _forget_logs(work: Work) -> int:
    old = (
        select(operation_log.c.id)
        .join(operations, operations.c.id == operation_log.c.operation_id)
        .where(operations.c.finished_at < work.now - _KEEP_LOGS)
        .limit(_AT_ONCE)
    )
    return work.connection.execute(delete(operation_log).where(operation_log.c.id.in_(old))).rowcount


def _forget_instances(work: Work, alive: Registry) -> int:
    old = select(instances.c.id).where(instances.c.started_at < work.now - _KEEP_INSTANCES)
    dead = [instance for instance in work.connection.execute(old).scalars() if alive.is_gone(instance)]
    deleted = 0
    for first in range(0, len(dead), _AT_ONCE):
        some = dead[first : first + _AT_ONCE]
        deleted += work.connection.execute(delete(instances).where(instances.c.id.in_(some))).rowcount
    return deleted
