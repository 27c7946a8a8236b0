"""What agents log about operations, on its way to the database: in batches, and never more than so much."""

import asyncio
import json
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import structlog
from sqlalchemy import delete, select

from ktrdr.backend.statements import HOLDER, insert_lines
from ktrdr.backend.tables import operation_log
from ktrdr.backend.transactions import Transactions
from ktrdr.backend.work import Work
from ktrdr.clock import Clock
from ktrdr.errors import DatabaseUnavailableError, StorageFullError
from ktrdr.events import LogEntry, TrainingLogged

KEPT_LINES = 1000
"""Of each operation: the newest."""
WRITE_INTERVAL_S = 0.5
_WITHIN_S = 0.02
"""So long a batch may wait for another transaction to share a commit with."""
_GRANT_TAKES_S = 5.0
"""The acceptance of a claim may be read after its first lines."""
_MOST_WAITING = 5000
"""Lines in memory, of all operations."""

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class _Claim:
    operation_id: str
    attempt: int
    claim_id: str
    agent_id: str


@dataclass(slots=True)
class _Waiting:
    lines: deque[LogEntry]
    since: float


class LogRecorder:
    """Keeps the end of what is logged about each operation.

    Lines of claims that no attempt was granted to are dropped, which the database decides: an attempt that
    is over, or was superseded, still has a log.

    Args:
        transactions: where it is written, at most once in `WRITE_INTERVAL_S`.
        clock: for the interval.
    """

    def __init__(self, transactions: Transactions, *, clock: Clock) -> None:
        self._transactions = transactions
        self._clock = clock
        self._waiting: dict[_Claim, _Waiting] = {}
        self._wake = asyncio.Event()

    @property
    def waiting(self) -> int:
        """How many lines are in memory."""
        return sum(len(waiting.lines) for waiting in self._waiting.values())

    def record(self, event: TrainingLogged) -> None:
        """Take note of what a claim logs."""
        claim = _Claim(event.operation_id, event.attempt, event.claim_id, event.agent_id)
        self._keep(claim, event.lines, self._clock.monotonic())
        self._wake.set()

    async def run(self) -> None:
        """Write what is new, for ever."""
        while True:
            await self._wake.wait()
            await self.flush()
            await self._clock.sleep(WRITE_INTERVAL_S)

    async def flush(self) -> None:
        """Write what is new now."""
        self._wake.clear()
        batch, self._waiting = self._waiting, {}
        if not batch:
            return
        try:
            unknown = await self._transactions.change(
                lambda work: [claim for claim, its in batch.items() if not _write(work, claim, its.lines)],
                within_s=_WITHIN_S,
            )
        except (DatabaseUnavailableError, StorageFullError) as error:
            _log.warning("logs of operations not written", lines=_count(batch), error=str(error))
            return
        now = self._clock.monotonic()
        for claim in unknown:
            if now - batch[claim].since < _GRANT_TAKES_S:
                later = self._waiting.pop(claim, None)
                self._keep(claim, batch[claim].lines, batch[claim].since)
                if later is not None:
                    self._keep(claim, later.lines, later.since)
                self._wake.set()
            else:
                _log.debug(
                    "log of a claim that holds nothing dropped",
                    operation_id=claim.operation_id,
                    attempt=claim.attempt,
                    agent=claim.agent_id,
                )

    def _keep(self, claim: _Claim, lines: Sequence[LogEntry], since: float) -> None:
        its = self._waiting.setdefault(claim, _Waiting(deque(maxlen=KEPT_LINES), since))
        its.lines.extend(lines)
        while self.waiting > _MOST_WAITING:
            # Whoever says most has the least to lose.
            self._waiting.pop(max(self._waiting, key=lambda each: len(self._waiting[each].lines)))


def _count(batch: Mapping[_Claim, _Waiting]) -> int:
    return sum(len(waiting.lines) for waiting in batch.values())


def _write(work: Work, claim: _Claim, lines: Sequence[LogEntry]) -> bool:
    """Add lines to the log of an operation; return whether the claim was ever granted anything."""
    attempt = {"of_operation": claim.operation_id, "of_attempt": claim.attempt}
    if work.connection.execute(HOLDER, attempt).scalar_one_or_none() != claim.claim_id:
        return False
    last = _last_number(work, claim)
    rows: list[dict[str, Any]] = []
    for line in lines:
        if line.number <= last:
            continue  # it has come before
        rows.append(_row(claim, line, left_out=line.number - last - 1))
        last = line.number
    if rows:
        insert_lines(work.connection, rows)
        _trim(work, claim.operation_id)
    return True


def _last_number(work: Work, claim: _Claim) -> int:
    table = operation_log
    newest = (
        select(table.c.number)
        .where(table.c.operation_id == claim.operation_id, table.c.claim_id == claim.claim_id)
        .order_by(table.c.id.desc())
        .limit(1)
    )
    return work.connection.execute(newest).scalar_one_or_none() or 0


def _trim(work: Work, operation_id: str) -> None:
    mine = operation_log.c.operation_id == operation_id
    oldest = select(operation_log.c.id).where(mine).order_by(operation_log.c.id.desc()).offset(KEPT_LINES)
    if (last_to_go := work.connection.execute(oldest.limit(1)).scalar_one_or_none()) is not None:
        work.connection.execute(delete(operation_log).where(mine, operation_log.c.id <= last_to_go))


def _row(claim: _Claim, line: LogEntry, *, left_out: int) -> dict[str, Any]:
    return {
        "operation_id": claim.operation_id,
        "attempt": claim.attempt,
        "claim_id": claim.claim_id,
        "agent_id": claim.agent_id,
        "number": line.number,
        "left_out": left_out,
        "at": line.at,
        "level": line.level,
        "source": line.source,
        "event": line.event,
        "fields": json.dumps(line.fields, ensure_ascii=False),
    }
