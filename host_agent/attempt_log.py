"""What was logged about one attempt and is not published yet: so many lines, and the weightiest."""

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal, cast

from host_agent.frames import LogLine
from host_agent.journal import Claim
from ktrdr.clock import Clock
from ktrdr.events.log_lines import LogEntry, LogLevel, LogSource
from ktrdr.logs.overhearing import Overheard

LINES_PER_S = 50.0
BURST = 200
CAPACITY = 200
"""Lines that wait; what was left out is known by their numbers."""
_BATCH_LINES = 100
_BATCH_CHARACTERS = 32 * 1024
"""After these a batch is full; the last line may exceed it."""

_RANKS: dict[str, Literal[0, 1, 2]] = {"debug": 0, "info": 1, "warning": 2, "error": 2, "critical": 2}
_AGENTS_OWN = 3
"""Rank of what the agent itself says: it is little, and how the attempt went."""
_KNOWN_ANYWAY = ("operation_id", "attempt", "agent")


@dataclass(frozen=True, slots=True)
class _Line:
    number: int
    at: datetime
    level: str
    source: LogSource
    event: str
    fields: Mapping[str, object] = field(default_factory=dict)

    @property
    def rank(self) -> int:
        return _AGENTS_OWN if self.source == "agent" else _RANKS[self.level]

    @property
    def characters(self) -> int:
        return len(self.event) + sum(len(name) + len(str(value)) for name, value in self.fields.items())


class AttemptLog:
    """Takes lines, and gives them out as slowly as is good for everybody else.

    On average `LINES_PER_S` come out, `BURST` of them at once at most. Of what comes in faster, the least
    severe are left out first, and of those the oldest; what the agent says itself stays longest.

    Args:
        claim: whose lines.
        clock: for the times of lines, and the rate.
        on_said: told of each line.
    """

    def __init__(self, claim: Claim, *, clock: Clock, on_said: Callable[[], None]) -> None:
        self.claim = claim
        self.has_ended = False
        self._clock = clock
        self._on_said = on_said
        self._said = 0
        self._waiting: tuple[deque[_Line], ...] = tuple(deque() for _ in range(_AGENTS_OWN + 1))
        self._budget = float(BURST)
        self._budget_at = clock.monotonic()

    def __len__(self) -> int:
        return sum(len(lines) for lines in self._waiting)

    def overhear(self, line: Overheard) -> None:
        """Take a line that the agent has logged."""
        fields = {name: value for name, value in line.fields.items() if name not in _KNOWN_ANYWAY}
        self._put(line.level, "agent", line.event, fields)

    def relay(self, line: LogLine) -> None:
        """Take a line of the runner's."""
        self._put(line.level, "executor", line.event, line.fields)

    def end(self) -> None:
        """Expect no more lines."""
        self.has_ended = True
        self._on_said()

    def take(self, *, at_once: bool = False) -> tuple[LogEntry, ...]:
        """Return the lines that may be published now, in their order; `put_back` what was not.

        Args:
            at_once: whether the rate is no matter: for what is left at the end.
        """
        now = self._clock.monotonic()
        self._budget = min(BURST, self._budget + (now - self._budget_at) * LINES_PER_S)
        self._budget_at = now
        limit = _BATCH_LINES if at_once else min(_BATCH_LINES, int(self._budget))
        taken: list[_Line] = []
        characters = 0
        while len(taken) < limit and characters < _BATCH_CHARACTERS and len(self):
            oldest = min((lines for lines in self._waiting if lines), key=lambda lines: lines[0].number)
            taken.append(oldest.popleft())
            characters += taken[-1].characters
        self._budget = max(0.0, self._budget - len(taken))
        return tuple(_entry(line) for line in taken)

    def put_back(self, entries: tuple[LogEntry, ...]) -> None:
        """Keep lines that could not be published, for as long as there is room."""
        for entry in reversed(entries):
            line = _Line(entry.number, entry.at, entry.level, entry.source, entry.event, entry.fields)
            self._waiting[line.rank].appendleft(line)
        self._drop_excess()

    def _put(self, level: str, source: LogSource, event: str, fields: Mapping[str, object]) -> None:
        self._said += 1
        level = level if level in _RANKS else "info"
        line = _Line(self._said, self._clock.now(), level, source, event, fields)
        self._waiting[line.rank].append(line)
        self._drop_excess()
        self._on_said()

    def _drop_excess(self) -> None:
        while len(self) > CAPACITY:
            next(lines for lines in self._waiting if lines).popleft()


def _entry(line: _Line) -> LogEntry:
    return LogEntry(
        number=line.number,
        at=line.at,
        level=cast("LogLevel", line.level),
        source=line.source,
        event=line.event,
        fields=dict(line.fields),  # the event makes them fit
    )
