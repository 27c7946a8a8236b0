"""Timeframes: how long a bar is, and where its periods begin and end."""

import re
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum

import numpy as np
import pandas as pd

from ktrdr.errors import DataError
from ktrdr.market.times import FIRST_MONDAY, MICROSECONDS_PER_DAY, Int64Array, to_index, to_microseconds

_PATTERN = re.compile(r"([1-9][0-9]{0,3})([mhdwM])", re.ASCII)


class Unit(StrEnum):
    """The letter of a timeframe."""

    MINUTE = "m"
    HOUR = "h"
    DAY = "d"
    WEEK = "w"
    MONTH = "M"
    """A calendar month."""


_MICROSECONDS = {
    Unit.MINUTE: 60_000_000,
    Unit.HOUR: 3_600_000_000,
    Unit.DAY: MICROSECONDS_PER_DAY,
    Unit.WEEK: 7 * MICROSECONDS_PER_DAY,
    # The mean of the Gregorian calendar, for ordering only; where a month ends, the calendar decides.
    Unit.MONTH: 3_652_425 * MICROSECONDS_PER_DAY // 120_000,
}


@dataclass(frozen=True, slots=True)
class Timeframe:
    """The length of a bar, as in ``15m`` or ``1M``.

    Periods are anchored in UTC: minutes, hours and days count from 1970-01-01 00:00, weeks from Monday
    1970-01-05, months from January 1970. So a period of ``4h`` begins at 00:00, 04:00, …, one of ``1w`` on a
    Monday and one of ``3M`` with a calendar quarter.

    Timeframes are ordered by length; ``60m`` and ``1h`` are neither below nor above each other.
    """

    count: int
    unit: Unit

    def __post_init__(self) -> None:
        if not 1 <= self.count <= 9999:
            raise ValueError(f"a timeframe has 1 to 9999 units, not {self.count}")

    @classmethod
    def parse(cls, text: "str | Timeframe") -> "Timeframe":
        """Return the timeframe that the text names; a `Timeframe` is returned as it is.

        Raises:
            DataError: it names none.
        """
        if isinstance(text, Timeframe):
            return text
        match = _PATTERN.fullmatch(text)
        if match is None:
            lower = text[:-1] + text[-1:].lower()
            meant = f" Did you mean '{lower}'?" if lower != text and _PATTERN.fullmatch(lower) else ""
            raise DataError(
                f"'{text}' is not a timeframe.{meant}",
                fix="Write a number and one of m (minutes), h, d, w, M (months), as in 5m, 1h or 1d.",
            )
        return cls(int(match[1]), Unit(match[2]))

    def __str__(self) -> str:
        return f"{self.count}{self.unit}"

    def __lt__(self, other: "Timeframe") -> bool:
        return self.duration < other.duration

    @property
    def duration(self) -> timedelta:
        """Length of a bar; for months the calendar's mean, good for comparison and estimates only."""
        return timedelta(microseconds=self._microseconds)

    def is_multiple_of(self, fine: "Timeframe") -> bool:
        """Return whether each period of this timeframe is made of whole periods of the other.

        True of itself and of equals (``1h`` of ``60m``); false of ``1w`` of ``2d`` and ``1M`` of ``1w``,
        whose edges do not meet.
        """
        if fine.unit is self.unit:
            return self.count % fine.count == 0
        if Unit.MONTH in (fine.unit, self.unit) or Unit.WEEK in (fine.unit, self.unit):
            # The edges are days of the calendar, so the finer periods must fit into a day.
            return self.unit in (Unit.WEEK, Unit.MONTH) and Timeframe(1, Unit.DAY).is_multiple_of(fine)
        return self._microseconds % fine._microseconds == 0

    def close_times(self, opens: pd.DatetimeIndex) -> pd.DatetimeIndex:
        """Return when bars that open at these times have closed: one timeframe later.

        A bar that is cut short (the last of a session) closes earlier in truth; taking it as open for its
        whole length can only delay what is known, never reveal it early.

        Raises:
            DataError: the times have no time zone.
        """
        return to_index(self.close_microseconds(to_microseconds(opens)))

    def close_microseconds(self, opens: Int64Array) -> Int64Array:
        """Do `close_times` on microseconds since 1970.

        A month is the next month's same day and time; a day that it lacks runs on into the month after.
        """
        if self.unit is not Unit.MONTH:
            return opens + self._microseconds
        months = _months(opens)
        return opens - _month_starts(months) + _month_starts(months + self.count)

    def period_starts(self, times: Int64Array) -> Int64Array:
        """Return the start of the period that each time, in microseconds since 1970, lies in."""
        if self.unit is Unit.MONTH:
            months = _months(times)
            return _month_starts(months - months % self.count)
        anchor = FIRST_MONDAY if self.unit is Unit.WEEK else 0
        starts: Int64Array = times - (times - anchor) % self._microseconds
        return starts

    @property
    def _microseconds(self) -> int:
        return self.count * _MICROSECONDS[self.unit]


def _months(microseconds: Int64Array) -> Int64Array:
    return microseconds.view("M8[us]").astype("M8[M]").view(np.int64)


def _month_starts(months: Int64Array) -> Int64Array:
    return months.view("M8[M]").astype("M8[us]").view(np.int64)
