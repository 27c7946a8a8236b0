"""What agents have logged about an operation, read, and followed until its end."""

import asyncio
import json
from collections import deque
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, get_args

from sqlalchemy import Row, select

from ktrdr.backend.log_recorder import KEPT_LINES
from ktrdr.backend.store import OperationStore
from ktrdr.backend.tables import operation_log
from ktrdr.backend.waiting import Offload
from ktrdr.clock import Clock
from ktrdr.events.log_lines import LogLevel

LEVELS: tuple[LogLevel, ...] = get_args(LogLevel)
"""From the least severe to the most."""

POLL_S = 0.5
"""How often the database is asked for new lines, by all who follow an operation together."""
_LAST_LINES_TAKE = timedelta(seconds=1.5)
"""After its end, until what an agent said of it is in the database."""


@dataclass(frozen=True, slots=True)
class LogRecord:
    """One line that an agent has logged about an operation."""

    position: int
    """In the order in which lines came; grows."""
    at: datetime
    attempt: int
    number: int
    """Counts every line of the attempt."""
    agent_id: str
    source: str
    """``agent``, or ``executor`` in its runner."""
    level: str
    event: str
    fields: Mapping[str, bool | int | float | str | None]
    left_out: int
    """How many lines are missing before this one."""


class LogReader:
    """What somebody has read of a log, so that only what they miss is missing.

    The oldest line that is kept says what is missing before it; who was cut off may have read some of that.
    """

    def __init__(self) -> None:
        self._last: dict[int, int] = {}

    def read(self, lines: Sequence[LogRecord]) -> list[LogRecord]:
        """Return the next lines as they are to this reader."""
        return [self._read(line) for line in lines]

    def _read(self, line: LogRecord) -> LogRecord:
        last, self._last[line.attempt] = self._last.get(line.attempt), line.number
        if last is None or line.number <= last:
            return line
        return replace(line, left_out=line.number - last - 1)


def read_log(
    store: OperationStore,
    operation_id: str,
    *,
    after: int = 0,
    limit: int = KEPT_LINES,
    level: LogLevel = "debug",
) -> list[LogRecord]:
    """Return what is kept of the log of an operation, oldest first; blocks.

    Args:
        store: where it is.
        operation_id: of which operation.
        after: only what came after the line of this position.
        limit: at most so many lines.
        level: only lines that are at least so severe.
    """
    table = operation_log
    query = (
        select(table)
        .where(table.c.operation_id == operation_id, table.c.id > after)
        .order_by(table.c.id)
        .limit(limit)
    )
    if level != LEVELS[0]:
        query = query.where(table.c.level.in_(LEVELS[LEVELS.index(level) :]))
    first = select(table.c.id).where(table.c.operation_id == operation_id).order_by(table.c.id).limit(1)
    with store.reading() as connection:
        rows = connection.execute(query).all()
        oldest = connection.execute(first).scalar_one_or_none() if rows else None
    # What came before the oldest line was kept once, or never came.
    return [_record(row, left_out=row.number - 1 if row.id == oldest else row.left_out) for row in rows]


class LogTail:
    """The log of one operation, read once for all who follow it.

    Args:
        store: where it is.
        operation_id: of which operation.
        clock: for the interval.
        offload: where the database is asked.
    """

    def __init__(self, store: OperationStore, operation_id: str, *, clock: Clock, offload: Offload) -> None:
        self._store = store
        self._operation_id = operation_id
        self._clock = clock
        self._offload = offload
        self._reading = asyncio.Lock()
        self._lines: deque[LogRecord] = deque(maxlen=KEPT_LINES)
        self._next_at = float("-inf")
        self._over_at: float | None = None
        self._is_over = False

    async def newer(self, after: int) -> tuple[list[LogRecord], bool]:
        """Return what came after a position and is known by now, and whether that is all there will be.

        Raises:
            OperationNotFoundError: there is no such operation.
        """
        async with self._reading:
            now = self._clock.monotonic()
            if now >= self._next_at and not self._is_over:
                await self._read(now)
                self._next_at = now + POLL_S
        newer = [line for line in self._lines if line.position > after]
        if newer and len(self._lines) == KEPT_LINES and after and newer[0] is self._lines[0]:
            # A reader who was slow: what fell out of here meanwhile may still be in the database.
            newer = await self._offload(lambda: read_log(self._store, self._operation_id, after=after))
        return newer, self._is_over

    async def follow(self, after: int = 0) -> AsyncGenerator[list[LogRecord], None]:
        """Yield lines as they come, a few at a time, until the operation has ended.

        Raises:
            OperationNotFoundError: there is no such operation.
        """
        reader = LogReader()
        while True:
            lines, is_over = await self.newer(after)
            if lines:
                after = lines[-1].position
                yield reader.read(lines)
            if is_over:
                return
            await self._clock.sleep(POLL_S)

    async def _read(self, now: float) -> None:
        last = self._lines[-1].position if self._lines else 0

        def read() -> tuple[timedelta | None, list[LogRecord]]:
            # First the state: what is said by its end, is read then.
            operation = self._store.get(self._operation_id)
            ended = operation.finished_at if operation.state.terminal else None
            ago = self._store.now() - ended if ended is not None else None
            return ago, read_log(self._store, self._operation_id, after=last)

        ended_ago, lines = await self._offload(read)
        self._lines.extend(lines)
        if ended_ago is not None and self._over_at is None:
            left = min(max(_LAST_LINES_TAKE - ended_ago, timedelta()), _LAST_LINES_TAKE)
            self._over_at = now + left.total_seconds()
        self._is_over = self._over_at is not None and now >= self._over_at


def _record(row: Row[Any], *, left_out: int) -> LogRecord:
    return LogRecord(
        position=row.id,
        at=row.at,
        attempt=row.attempt,
        number=row.number,
        agent_id=row.agent_id,
        source=row.source,
        level=row.level,
        event=row.event,
        fields=json.loads(row.fields),
        left_out=left_out,
    )
