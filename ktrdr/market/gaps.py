"""What a table of bars covers, and which bars it lacks."""

from dataclasses import dataclass, field
from datetime import datetime

import numpy as np
import numpy.typing as npt

from ktrdr.market.timeframe import Timeframe
from ktrdr.market.times import FIRST_MONDAY, MICROSECONDS_PER_DAY, Int64Array, to_datetime

LISTED_GAPS = 100
"""A report lists so many gaps at most, the largest; it counts all."""

_WEEK = 7 * MICROSECONDS_PER_DAY
# The market counts as closed in a slot of the week when a quarter of its occurrences have no bar: summer time
# moves the hours of a session for at least a third of the year, and holidays touch no slot so often.
_CLOSED_SHARE = 0.25
# Once is no habit: a hole in two weeks of data must not make its hours look closed.
_CLOSED_TIMES = 2


@dataclass(frozen=True, slots=True)
class Gap:
    """A hole in the data that the market's usual week does not explain."""

    start: datetime
    """When the bar before it closed."""
    end: datetime
    """When the bar after it opened."""
    missing_bars: int
    """Bars that would usually be there; closed hours within the hole do not count."""


@dataclass(frozen=True, slots=True)
class BarReport:
    """What there is; printed for people and never a reason to refuse the data."""

    source: str
    timeframe: Timeframe
    rows: int
    start: datetime
    """Open time of the first bar."""
    end: datetime
    """Open time of the last bar."""
    gaps: tuple[Gap, ...]
    """In the order of time; the largest `LISTED_GAPS` when there are more."""
    gap_count: int
    missing_bars: int
    """In all gaps."""
    recurring_holes: int
    """Holes at times of the week that often have none: nights, weekends, hours of little trade."""

    def describe(self) -> str:
        """Return one line: what there is and how much is missing."""
        holes = [_count(self.recurring_holes, "recurring hole")] if self.recurring_holes else []
        if self.gap_count:
            largest = max(self.gaps, key=lambda gap: gap.missing_bars)
            holes.append(
                f"{_count(self.gap_count, 'gap')} where {_count(self.missing_bars, 'bar')} should be "
                f"(most: {largest.missing_bars:,} after {largest.start:%Y-%m-%d %H:%M})"
            )
        return (
            f"{self.source}: {_count(self.rows, 'bar')} of {self.timeframe} from "
            f"{self.start:%Y-%m-%d %H:%M} to {self.end:%Y-%m-%d %H:%M} UTC; "
            f"{' and '.join(holes) or 'no gaps'}"
        )


@dataclass(frozen=True, slots=True)
class TradingWeek:
    """At which times of the week a market usually has bars, learnt from bars."""

    timeframe: Timeframe
    open_slots: npt.NDArray[np.bool_] = field(repr=False)
    """One per bar of a week, Monday 00:00 UTC first; a single one where a week is not made of such bars."""

    @classmethod
    def learn(cls, opens: Int64Array, timeframe: Timeframe) -> "TradingWeek":
        """Return the usual week of bars with these open times (microseconds since 1970, increasing).

        Weeks without any bar teach nothing. It takes at least two weeks to see a closure.
        """
        duration = _fixed_duration(timeframe)
        if duration is None or len(opens) == 0:
            return cls(timeframe, np.ones(1, np.bool_))
        per_week = _WEEK // duration
        slots = _distinct(_slots(opens, duration))
        present = np.bincount(slots % per_week, minlength=per_week)
        weeks = _distinct(slots // per_week)
        empty_weeks = weeks[-1] - weeks[0] + 1 - len(weeks)
        first, last = slots[0] % per_week, slots[-1] % per_week
        number = np.arange(per_week)
        spanned = weeks[-1] - weeks[0] + 1 - empty_weeks - (number < first) - (number > last)
        absent = spanned - present
        closed = (absent >= _CLOSED_TIMES) & (absent >= _CLOSED_SHARE * spanned)
        return cls(timeframe, ~closed)

    def report(self, opens: Int64Array, source: str) -> BarReport:
        """Return what bars with these open times cover and lack (at least one bar, increasing)."""
        closes = self.timeframe.close_microseconds(opens)
        rows, missing = self._holes(opens)
        gap_rows, gap_missing = rows[missing > 0], missing[missing > 0]
        largest = np.sort(np.argsort(-gap_missing, kind="stable")[:LISTED_GAPS])
        return BarReport(
            source=source,
            timeframe=self.timeframe,
            rows=len(opens),
            start=to_datetime(opens[0]),
            end=to_datetime(opens[-1]),
            gaps=tuple(
                Gap(to_datetime(closes[row]), to_datetime(opens[row + 1]), int(count))
                for row, count in zip(gap_rows[largest], gap_missing[largest], strict=True)
            ),
            gap_count=len(gap_rows),
            missing_bars=int(gap_missing.sum()),
            recurring_holes=int((missing == 0).sum()),
        )

    def _holes(self, opens: Int64Array) -> tuple[Int64Array, Int64Array]:
        """Return the rows after which bars are absent, and how many of them should be there."""
        duration = _fixed_duration(self.timeframe)
        # Rounded, so that a day of 23 or 25 hours is no hole.
        length = duration or int(self.timeframe.duration.total_seconds() * 1_000_000)
        absent = (np.diff(opens) + length // 2) // length - 1
        rows = np.flatnonzero(absent > 0)
        if duration is None:
            return rows, absent[rows]
        per_week = len(self.open_slots)
        open_before = np.concatenate(([0], np.cumsum(self.open_slots)))  # open slots before each of the week

        def open_until(slots: Int64Array) -> Int64Array:
            count: Int64Array = slots // per_week * open_before[-1] + open_before[slots % per_week]
            return count

        start = _slots(opens[rows], duration) + 1
        return rows, open_until(start + absent[rows]) - open_until(start)


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def _fixed_duration(timeframe: Timeframe) -> int | None:
    """Microseconds of a bar where whole bars make a week of at least two; otherwise None."""
    duration = int(timeframe.duration.total_seconds() * 1_000_000)
    return duration if duration < _WEEK and _WEEK % duration == 0 else None


def _distinct(increasing: Int64Array) -> Int64Array:
    return increasing[np.flatnonzero(np.diff(increasing, prepend=increasing[0] - 1))]


def _slots(opens: Int64Array, duration: int) -> Int64Array:
    """Number each time by bars since Monday 1970-01-05."""
    return (opens - FIRST_MONDAY) // duration
