"""Pages of operations, for those who list many: each page costs the same, however many there are."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Select, func, select, tuple_

from ktrdr.backend.records import HistoryEntry, OperationRecord
from ktrdr.backend.rows import history_entry, operation_record, select_history, select_operations
from ktrdr.backend.states import State
from ktrdr.backend.store import OperationStore
from ktrdr.backend.tables import attempts, operation_history, operations

COUNTED_AT_MOST = 10_000
"""Counting all of a million rows would take longer than everything else of a request."""
_MANY_FOR_S = 10.0
"""So long what was too much to count is taken to be so still."""


@dataclass(frozen=True, slots=True)
class Filter:
    """Which operations."""

    states: Sequence[State] = ()
    """In one of these; empty: in any."""
    strategy: str | None = None


@dataclass(frozen=True, slots=True)
class Position:
    """Where a page ends: that of its last operation."""

    created_at: datetime
    operation_id: str


@dataclass(frozen=True, slots=True)
class NumberedEntry:
    """One thing that happened to an operation, and its place in the order of everything that happened."""

    number: int
    entry: HistoryEntry


@dataclass(frozen=True, slots=True)
class AttemptRecord:
    """One attempt that an agent has, or had."""

    attempt: int
    agent_id: str
    device: str
    accepted_at: datetime
    ended_at: datetime | None
    """None: it may still be running somewhere."""
    outcome: str | None


def list_page(
    store: OperationStore,
    wanted: Filter,
    *,
    limit: int,
    after: Position | None = None,
    offset: int = 0,
    oldest_first: bool = False,
) -> list[OperationRecord]:
    """Return operations in the order of their submission.

    Args:
        store: where they are.
        wanted: which ones.
        limit: at most so many.
        after: the page begins behind it.
        offset: so many are left out first; each costs time.
        oldest_first: default: the newest.
    """
    created_at, operation_id = operations.c.created_at, operations.c.id
    query = _filtered(select_operations(), wanted).limit(limit).offset(offset)
    if oldest_first:
        query = query.order_by(created_at, operation_id)
    else:
        query = query.order_by(created_at.desc(), operation_id.desc())
    if after is not None:
        query = query.where(_behind(after, oldest_first=oldest_first))
    with store.reading() as connection:
        return [operation_record(row) for row in connection.execute(query)]


class Counts:
    """How many operations there are; what is too much to be counted is not begun to be counted each time.

    Args:
        store: where they are.
        now: monotonic seconds.
    """

    def __init__(self, store: OperationStore, *, now: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        self._now = now
        # Of those alone of which there are many: clients cannot make it grow.
        self._many_until: dict[tuple[object, ...], float] = {}

    def count(self, wanted: Filter) -> int:
        """Return how many there are, or `COUNTED_AT_MOST` if there are more, or were some seconds ago."""
        key = (*wanted.states, wanted.strategy)
        if self._now() < self._many_until.get(key, 0.0):
            return COUNTED_AT_MOST
        some = _filtered(select(operations.c.id), wanted).limit(COUNTED_AT_MOST).subquery()
        with self._store.reading() as connection:
            found: int = connection.execute(select(func.count()).select_from(some)).scalar_one()
        if found == COUNTED_AT_MOST:
            self._many_until[key] = self._now() + _MANY_FOR_S
        return found


def attempts_of(store: OperationStore, operation_id: str) -> list[AttemptRecord]:
    """Return every attempt of an operation that an agent accepted."""
    query = select(attempts).where(attempts.c.operation_id == operation_id).order_by(attempts.c.attempt)
    with store.reading() as connection:
        return [
            AttemptRecord(
                attempt=row.attempt,
                agent_id=row.agent_id,
                device=row.device,
                accepted_at=row.accepted_at,
                ended_at=row.ended_at,
                outcome=row.outcome,
            )
            for row in connection.execute(query)
            if row.claim_id  # one without was granted to nobody, for good
        ]


def history_after(store: OperationStore, operation_id: str, after: int = 0) -> list[NumberedEntry]:
    """Return what has happened to an operation since the entry of that number, oldest first."""
    query = select_history(operation_id).where(operation_history.c.id > after)
    with store.reading() as connection:
        return [NumberedEntry(row.id, history_entry(row)) for row in connection.execute(query)]


def _filtered(query: Select[Any], wanted: Filter) -> Select[Any]:
    if wanted.states:
        query = query.where(operations.c.state.in_(wanted.states))
    if wanted.strategy is not None:
        query = query.where(operations.c.strategy == wanted.strategy)
    return query


def _behind(position: Position, *, oldest_first: bool) -> ColumnElement[bool]:
    # As rows: an index leads there at once, which it does not by a disjunction.
    columns = (operations.c.created_at, operations.c.id)
    here = tuple_(*columns)
    there = tuple_(position.created_at, position.operation_id, types=[column.type for column in columns])
    return here > there if oldest_first else here < there
