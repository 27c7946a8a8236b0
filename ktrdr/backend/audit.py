"""Who has changed what: every write over HTTP, and every change of the tokens and the configuration."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import insert, select

from ktrdr.backend.store import OperationStore
from ktrdr.backend.tables import audit_log
from ktrdr.backend.work import Work

Witness = Callable[[Work, str], None]
"""Writes down what something was done to, in the transaction that does it: both are there, or neither."""


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One write."""

    number: int
    """Grows with each entry."""
    at: datetime
    who: str
    """Name and id of the token, or the user of the machine."""
    action: str
    """``POST /api/v1/trainings``, or ``tokens create`` of the command line."""
    subject: str
    """What was written to: the id of an operation, the path of a request."""
    status: int | None
    """Of the HTTP answer; None for what came over no HTTP."""
    outcome: str
    """``done``, or the code of the problem that was answered."""


def noting(
    who: str, action: str, subject: str, outcome: str, status: int | None = None
) -> Callable[[Work], None]:
    """Return what adds an entry, in a transaction of its own or as a part of another."""
    values = {
        "who": who[:128],
        "action": action[:128],
        "subject": subject,
        "status": status,
        "outcome": outcome,
    }

    def action_of(work: Work) -> None:
        work.insert(_INSERT, {"at": work.now, **values})

    return action_of


def witness_by(who: str, action: str, status: int | None = None) -> Witness:
    """Return what adds an entry of something that was done, as a part of the transaction that does it."""
    return lambda work, subject: noting(who, action, subject, "done", status)(work)


def audit_entries(store: OperationStore, *, limit: int, before: int | None = None) -> list[AuditEntry]:
    """Return entries, newest first.

    Args:
        store: where they are.
        limit: at most so many.
        before: the number of the last one of the previous page.
    """
    query = select(audit_log).order_by(audit_log.c.id.desc()).limit(limit)
    if before is not None:
        query = query.where(audit_log.c.id < before)
    with store.reading() as connection:
        return [
            AuditEntry(row.id, row.at, row.who, row.action, row.subject, row.status, row.outcome)
            for row in connection.execute(query)
        ]


_INSERT = insert(audit_log)
