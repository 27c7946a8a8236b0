"""What a context series covers."""

from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np

from ktrdr.market.context.series import ContextSeries, ContextTable, spacing
from ktrdr.market.timeframe import Timeframe
from ktrdr.market.times import to_datetime, to_microseconds

_STALE = 5
"""So many usual distances without a new row are worth a word,"""
_WEEKEND = timedelta(days=4)
"""but no less than what a market is closed for at most."""


@dataclass(frozen=True, slots=True)
class ContextReport:
    """What there is; printed for people and never a reason to refuse the data."""

    source: str
    """The file or files."""
    source_id: str
    rows: int
    start: datetime
    """When the first row became known."""
    end: datetime
    """When the last one did."""
    spacing: timedelta
    """How far they usually are apart."""
    longest_wait: timedelta
    """Between two rows; nothing for a single one."""
    wait_since: datetime
    """When it began."""
    silence: timedelta
    """From the last row to the end of the bars."""
    notes: tuple[str, ...]

    @classmethod
    def of(cls, series: ContextSeries, table: ContextTable, last: int) -> "ContextReport":
        """Return what there is in the rows of a series that bars up to a moment need.

        Args:
            series: where they come from.
            table: the rows; at least one.
            last: when the last bar closes, in microseconds since 1970.
        """
        known_at = to_microseconds(table.index)
        steps = np.append(np.diff(known_at), 0)
        longest = int(steps.argmax())
        return cls(
            source=" and ".join(str(path) for path in series.files),
            source_id=series.source_id,
            rows=len(table),
            start=to_datetime(known_at[0]),
            end=to_datetime(known_at[-1]),
            spacing=Timeframe.parse(spacing(table)).duration,
            longest_wait=timedelta(microseconds=int(steps[longest])),
            wait_since=to_datetime(known_at[longest]),
            silence=timedelta(microseconds=max(0, last - int(known_at[-1]))),
            notes=series.notes,
        )

    def describe(self) -> str:
        """Return one line: what there is, and how long nothing new came."""
        rows = f"{self.rows:,} row{'' if self.rows == 1 else 's'}"
        parts = [
            f"{self.source}: {rows} of {self.source_id}, known from {self.start:%Y-%m-%d %H:%M} to "
            f"{self.end:%Y-%m-%d %H:%M} UTC"
        ]
        patience = max(_STALE * self.spacing, _WEEKEND)
        if self.longest_wait > patience:
            parts.append(
                f"nothing new for {_days(self.longest_wait)} from {self.wait_since:%Y-%m-%d %H:%M} on"
            )
        if self.silence > patience:
            parts.append(f"nothing new in the last {_days(self.silence)} of the bars")
        return "; ".join([*parts, *self.notes])


def _days(time: timedelta) -> str:
    return f"{time / timedelta(days=1):.1f} days"
