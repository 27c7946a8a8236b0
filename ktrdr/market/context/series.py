"""A context series: rows that are each known from a moment on."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import pandas as pd

from ktrdr.market.bars import BAR_COLUMNS
from ktrdr.market.columns import make_bars
from ktrdr.market.times import MICROSECONDS_PER_DAY, Int64Array, describe_time, to_microseconds
from ktrdr.market.validation import LISTED_EXAMPLES, Finding, check_structure, refusal, row_number

ContextTable: TypeAlias = pd.DataFrame
"""The rows of one context series.

Index: ``timestamp``, when the row became **known**, UTC, strictly increasing.
Columns: `BAR_COLUMNS`, float64. A series of plain values has them as open, high, low and close, and volume 0.
"""


@dataclass(frozen=True, slots=True)
class ContextSeries:
    """A context series, and where it comes from."""

    source_id: str
    """What ``data_source`` of an indicator calls it."""
    table: ContextTable
    files: tuple[Path, ...]
    notes: tuple[str, ...] = field(default=())
    """What is worth knowing of how it was read."""


def known_rows(known_at: Int64Array, moments: Int64Array) -> Int64Array:
    """Return, for each moment, the position of the newest row that is known by then; -1 where none is.

    Args:
        known_at: when each row became known, increasing, in microseconds since 1970.
        moments: likewise; in any order.
    """
    return np.searchsorted(known_at, moments, side="right").astype(np.int64) - 1


def needed_rows(table: ContextTable, first: int, last: int, before: int) -> ContextTable:
    """Return the rows that moments from ``first`` to ``last`` can see, and so many from before those.

    Args:
        table: the series.
        first: the first moment, in microseconds since 1970.
        last: the last one.
        before: rows that are wanted from before the one that is seen at ``first``, for indicators to warm up.
    """
    known_at = to_microseconds(table.index)
    start, end = known_rows(known_at, np.array([first, last], np.int64))
    return table.iloc[max(0, int(start) - before) : int(end) + 1]


def plain_series(known_at: Int64Array, values: npt.NDArray[np.float64]) -> ContextTable:
    """Return the table of a series of plain values, at least in the order in which they became known.

    Of values that became known at the same moment each counts as one microsecond later than the one before:
    the index has to increase, and later is the side on which nothing is revealed early.
    """
    rows = np.arange(len(known_at), dtype=np.int64)
    times = np.maximum.accumulate(known_at - rows) + rows
    return make_bars(times, {**dict.fromkeys(BAR_COLUMNS, values), "volume": np.zeros(len(values))})


def check_context(table: ContextTable, source: str) -> None:
    """Check the form of a table, that its times increase, and that its values are finite.

    Raises:
        DataError: they are not.
    """
    check_structure(table, source)
    known_at = to_microseconds(table.index)
    values = table.to_numpy(np.float64)
    checks = (
        ("times that are not later than the one before", np.diff(known_at, prepend=known_at[0] - 1) <= 0),
        ("missing or infinite values", np.logical_not(np.isfinite(values).all(axis=1))),
    )
    findings = []
    for what, wrong in checks:
        rows = [int(row) for row in np.flatnonzero(wrong)]
        if rows:
            shown = rows[:LISTED_EXAMPLES]
            examples = tuple(f"{row_number(row)} ({describe_time(int(known_at[row]))})" for row in shown)
            findings.append(Finding(what, len(rows), examples))
    if findings:
        raise refusal(source, findings)


def spacing(table: ContextTable) -> str:
    """Return how far the rows usually are apart, in whole days, hours or minutes, as in ``7d``."""
    steps = np.diff(to_microseconds(table.index))
    usual = float(np.median(steps)) if len(steps) else MICROSECONDS_PER_DAY
    for unit, length in (("d", MICROSECONDS_PER_DAY), ("h", 3_600_000_000)):
        if usual >= length:
            return f"{min(round(usual / length), 9999)}{unit}"
    return f"{max(round(usual / 60_000_000), 1)}m"
