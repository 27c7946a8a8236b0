"""The part of the data that is asked for."""

from dataclasses import dataclass
from datetime import date, datetime, time
from typing import TypeAlias

import numpy as np

from ktrdr.errors import DataError
from ktrdr.market.times import MICROSECONDS_PER_DAY, Int64Array, describe_time, from_datetime

Moment: TypeAlias = str | date | datetime | None
"""A date, or a date and time (ISO 8601 when a string; UTC when it has no zone), or None for no limit."""


@dataclass(frozen=True, slots=True)
class TimeRange:
    """Bars that open at or after ``start`` and before ``end``, in microseconds since 1970; None: no limit."""

    start: int | None = None
    end: int | None = None

    @classmethod
    def parse(cls, start: Moment, end: Moment) -> "TimeRange":
        """Return the range from ``start`` on and up to ``end``.

        A date without a time as ``end`` includes that whole day; a time includes the bar that opens right
        then.

        Raises:
            DataError: one is not a time, or the end is before the start.
        """
        first, _ = _parse(start, "start")
        last, whole_day = _parse(end, "end")
        if last is not None:
            last += MICROSECONDS_PER_DAY if whole_day else 1
        if first is not None and last is not None and last <= first:
            raise DataError(
                f"The end ({end}) is before the start ({start}).", fix="Name a start before the end."
            )
        return cls(first, last)

    def rows(self, opens: Int64Array) -> slice:
        """Return which of the bars with these increasing open times are within."""
        start = 0 if self.start is None else int(np.searchsorted(opens, self.start))
        end = len(opens) if self.end is None else int(np.searchsorted(opens, self.end))
        return slice(start, end)

    def describe(self) -> str:
        """Return it for people, as in ``from 2017-01-01 00:00 to before 2018-01-01 00:00``."""
        parts = []
        if self.start is not None:
            parts.append(f"from {describe_time(self.start)}")
        if self.end is not None:
            parts.append(f"before {describe_time(self.end)}")
        return " and ".join(parts)


def _parse(moment: Moment, name: str) -> tuple[int | None, bool]:
    """Return microseconds since 1970 and whether it is a date without a time."""
    if moment is None:
        return None, False
    if isinstance(moment, str):
        try:
            moment = date.fromisoformat(moment) if len(moment) == 10 else datetime.fromisoformat(moment)
        except ValueError as error:
            raise DataError(
                f"The {name} '{moment}' is not a date or time.", fix="Write 2017-01-31 or 2017-01-31T22:00."
            ) from error
    whole_day = not isinstance(moment, datetime)
    if not isinstance(moment, datetime):
        moment = datetime.combine(moment, time())
    return from_datetime(moment), whole_day
