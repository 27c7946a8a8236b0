"""Forgetting what nobody will ask for again, so that a backend can run for years."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Any

import structlog
from sqlalchemy import Connection, Select, delete, func, or_, select

from ktrdr.backend.retention import Retention, in_words, limit_of
from ktrdr.backend.states import State
from ktrdr.backend.store import OperationStore
from ktrdr.backend.tables import (
    access_tokens,
    attempts,
    audit_log,
    inbox,
    instances,
    models,
    operation_epochs,
    operation_history,
    operation_log,
    operation_progress,
    operations,
    outbox,
)
from ktrdr.backend.transactions import Transactions
from ktrdr.backend.work import Work
from ktrdr.clock import Clock
from ktrdr.errors import DatabaseUnavailableError, StorageFullError

_log = structlog.get_logger()

_KEEP_MAIL = timedelta(days=1)
"""After the end of its operation. A result that comes again still later is answered without the inbox."""
_KEEP_INSTANCES = timedelta(days=30)
_AT_ONCE = 200
"""Rows in one transaction: others want to write too."""
_OPERATIONS_AT_ONCE = 20
"""Each has some dozens of rows in other tables."""
_FIRST_S = 60.0
"""Not at once: most processes end before."""
_EVERY_S = 3600.0
_PAUSE_S = 0.05
"""Between two transactions, for whoever waits."""
_TERMINAL = [state for state in State if state.terminal]


@dataclass(frozen=True, slots=True)
class Chore:
    """One kind of rows that grow old, and how they are forgotten."""

    what: str
    """As users call it."""
    why: str
    """Why it may go, for people."""
    old: Select[Any]
    """The keys of what may go."""
    forget: Callable[[Connection, Sequence[Any]], None]
    """Deletes rows by key."""
    at_once: int = _AT_ONCE
    may_go: Callable[[Any], bool] | None = None
    """What the database does not know of a key; None: all may."""

    def count(self, connection: Connection) -> int:
        """Return how many would go."""
        if self.may_go is not None:
            return sum(map(self.may_go, connection.execute(self.old).scalars()))
        found: int = connection.execute(select(func.count()).select_from(self.old.subquery())).scalar_one()
        return found

    def step(self, work: Work) -> int:
        """Forget some, in this transaction, and return how many; 0: there are no more."""
        if self.may_go is None:
            keys = list(work.connection.execute(self.old.limit(self.at_once)).scalars())
        else:
            keys = list(filter(self.may_go, work.connection.execute(self.old).scalars()))[: self.at_once]
        if keys:
            self.forget(work.connection, keys)
        return len(keys)


def chores(store: OperationStore, retention: Retention) -> Iterator[Chore]:
    """Yield what is to be done as of now, each only when it is asked for.

    What has not ended is never touched, nor what a model came from: its operation, with request and history,
    is kept as long as the model is.
    """
    now = store.now()
    if limit := limit_of(now, retention.operations):
        yield Chore(
            "operations",
            f"ended without a model over {_span(retention.operations)} ago",
            _old_operations(limit),
            _forget_operations,
            at_once=_OPERATIONS_AT_ONCE,
        )
    if limit := limit_of(now, retention.logs):
        yield Chore(
            "log lines",
            f"of operations that ended over {_span(retention.logs)} ago",
            select(operation_log.c.id)
            .join(operations, operations.c.id == operation_log.c.operation_id)
            .where(operations.c.finished_at < limit),
            partial(_delete_by, operation_log.c.id),
        )
    yield Chore(
        "curves",
        "of operations whose model has its own",
        select(operation_epochs.c.operation_id)
        .distinct()
        .join(models, models.c.operation_id == operation_epochs.c.operation_id)
        .where(models.c.created_at < now - _KEEP_MAIL),
        partial(_delete_by, operation_epochs.c.operation_id),
        at_once=_OPERATIONS_AT_ONCE,
    )
    yield from _of_mail(now - _KEEP_MAIL)
    if limit := limit_of(now, retention.audit):
        yield Chore(
            "audit entries",
            f"older than {_span(retention.audit)}",
            select(audit_log.c.id).where(audit_log.c.at < limit),
            partial(_delete_by, audit_log.c.id),
        )
        # The audit log names them.
        yield Chore(
            "tokens",
            f"revoked or expired over {_span(retention.audit)} ago",
            select(access_tokens.c.id).where(
                or_(access_tokens.c.revoked_at < limit, access_tokens.c.expires_at < limit)
            ),
            partial(_delete_by, access_tokens.c.id),
        )
    yield Chore(
        "processes",
        f"of backends, ended, started over {in_words(_KEEP_INSTANCES)} ago",
        select(instances.c.id).where(instances.c.started_at < now - _KEEP_INSTANCES),
        partial(_delete_by, instances.c.id),
        may_go=store.instances.is_gone,
    )


def tidy(store: OperationStore, retention: Retention) -> dict[str, int]:
    """Do all chores, in small transactions; return how many rows of each kind went. Blocks.

    Delivery: whoever is killed meanwhile has done a part, and leaves the rest to the next.
    """
    done = {}
    for chore in chores(store, retention):
        done[chore.what] = 0
        while (count := store.change(chore.step)) > 0:
            done[chore.what] += count
    return done


class Housekeeper:
    """Does the chores now and then, a few rows at a time, so that nobody waits for it.

    Args:
        store: what is tidied.
        transactions: the one thread that writes; between two transactions of this, others have their turn.
        retention: what is kept for how long.
        clock: for pauses.
    """

    def __init__(
        self, store: OperationStore, transactions: Transactions, retention: Retention, *, clock: Clock
    ) -> None:
        self._store = store
        self._transactions = transactions
        self._retention = retention
        self._clock = clock

    async def run(self) -> None:
        """Keep house for ever."""
        await self._clock.sleep(_FIRST_S)
        while True:
            try:
                await self._tidy()
            except (DatabaseUnavailableError, StorageFullError) as error:
                _log.warning("housekeeping waits", reason=str(error))
            await self._clock.sleep(_EVERY_S)

    async def _tidy(self) -> None:
        for chore in chores(self._store, self._retention):
            total = 0
            while (count := await self._transactions.change(chore.step)) > 0:
                total += count
                await self._clock.sleep(_PAUSE_S)
            if total:
                _log.info("tidied", what=chore.what, why=chore.why, rows=total)


def _of_mail(before: datetime) -> Iterable[Chore]:
    is_over = or_(operations.c.id.is_(None), operations.c.finished_at < before)
    why = f"of operations that ended over {in_words(_KEEP_MAIL)} ago"
    yield Chore(
        "events sent",
        why,
        select(outbox.c.id)
        .outerjoin(operations, operations.c.id == outbox.c.operation_id)
        .where(outbox.c.sent_at < before, is_over),
        partial(_delete_by, outbox.c.id),
    )
    yield Chore(
        "events received",
        why,
        select(inbox.c.event_id)
        .outerjoin(operations, operations.c.id == inbox.c.operation_id)
        .where(inbox.c.received_at < before, is_over),
        partial(_delete_by, inbox.c.event_id),
    )


def _old_operations(before: datetime) -> Select[Any]:
    return (
        select(operations.c.id)
        .outerjoin(models, models.c.operation_id == operations.c.id)
        .where(operations.c.state.in_(_TERMINAL), operations.c.finished_at < before)
        .where(models.c.id.is_(None))
    )


def _forget_operations(connection: Connection, ids: Sequence[Any]) -> None:
    for column in (
        operation_history.c.operation_id,
        operation_progress.c.operation_id,
        operation_epochs.c.operation_id,
        operation_log.c.operation_id,
        attempts.c.operation_id,
        operations.c.id,
    ):
        _delete_by(column, connection, ids)


def _delete_by(column: Any, connection: Connection, keys: Sequence[Any]) -> None:
    connection.execute(delete(column.table).where(column.in_(keys)))


def _span(kept: timedelta | None) -> str:
    assert kept is not None  # or there would be no limit
    return in_words(kept)
