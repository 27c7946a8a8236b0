"""Whether bars can be trained on: every problem at once, each with where it is."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
import numpy.typing as npt
import pandas as pd

from ktrdr.errors import DataError
from ktrdr.market.bars import BAR_COLUMNS, Bars
from ktrdr.market.gaps import BarReport, TradingWeek
from ktrdr.market.timeframe import Timeframe, Unit
from ktrdr.market.times import Int64Array, describe_time, to_microseconds

__all__ = [
    "LISTED_EXAMPLES",
    "NO_TIME",
    "BarReport",
    "Finding",
    "check_structure",
    "find_problems",
    "refusal",
    "row_number",
    "validate",
]

LISTED_EXAMPLES = 3
"""Of each kind of problem, so many are shown and the others counted."""

NO_TIME = np.iinfo(np.int64).min
"""How a missing time looks in microseconds (NumPy's NaT)."""

# Times that fit into 64-bit nanoseconds, which is what much of the ecosystem computes with.
_FIRST_TIME = int(datetime(1678, 1, 1, tzinfo=UTC).timestamp()) * 1_000_000
_LAST_TIME = int(datetime(2262, 1, 1, tzinfo=UTC).timestamp()) * 1_000_000

_PRICES = 4
"""The columns before the volume."""

Mask = npt.NDArray[np.bool_]
RowName = Callable[[int], str]
"""Says where a row (from 0) is: ``line 14``."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One kind of problem, with its first examples."""

    what: str
    """As in ``high below another price``."""
    count: int
    examples: tuple[str, ...]
    """At most `LISTED_EXAMPLES`, as in ``line 14 (high 1.05, close 1.06)``."""

    def describe(self) -> str:
        """Return one line."""
        more = self.count - len(self.examples)
        return f"{self.what}: {', '.join(self.examples)}" + (f" and {more:,} more" if more else "")


def validate(bars: Bars, timeframe: str | Timeframe, source: str) -> BarReport:
    """Check bars and return what they cover; gaps are reported, not refused.

    Refused are: a table that is not one of bars, missing and infinite values, times out of order or double
    (also where the rows are identical), prices of zero or less, a high below or a low above another price,
    a negative volume, and bars that usually are closer together than their timeframe.

    Prices of zero or less are refused because returns, rates of change and percentage barriers divide by
    prices, and because they are mostly fillers for missing values.

    Args:
        bars: what to check.
        timeframe: what they are said to be.
        source: what the errors call them, a file as a rule.

    Raises:
        DataError: lists every problem, each with its first rows.
    """
    parsed = Timeframe.parse(timeframe)
    check_structure(bars, source)
    opens = to_microseconds(bars.index)
    findings = find_problems(opens, bars.to_numpy(np.float64), parsed, row_number)
    if findings:
        raise refusal(source, findings)
    return TradingWeek.learn(opens, parsed).report(opens, source)


def check_structure(bars: Bars, source: str) -> None:
    """Check that a table has the columns, types and index of bars, and at least one row.

    Raises:
        DataError: it has not.
    """
    if tuple(bars.columns) != BAR_COLUMNS:
        columns = ", ".join(str(name) for name in bars.columns)
        raise DataError(f"{source}: the columns of bars are {', '.join(BAR_COLUMNS)}, not {columns}.")
    other = [f"{name} is {dtype}" for name, dtype in bars.dtypes.items() if dtype != np.float64]
    if other:
        raise DataError(f"{source}: prices and volumes must be float64, but {', '.join(other)}.")
    if not isinstance(bars.index, pd.DatetimeIndex) or bars.index.tz is None:
        raise DataError(
            f"{source}: bars must be indexed by their open times in UTC.",
            fix="Use a DatetimeIndex with a time zone.",
        )
    if bars.empty:
        raise DataError(f"{source}: there are no bars.")


def row_number(row: int) -> str:
    """Name a row of a table that has no lines."""
    return f"row {row + 1}"


def refusal(source: str, findings: Sequence[Finding]) -> DataError:
    """Return the error that lists all findings."""
    total = sum(finding.count for finding in findings)
    lines = ";\n".join(f"  {finding.describe()}" for finding in findings)
    problems = "a problem" if total == 1 else f"{total:,} problems"
    return DataError(f"{source} has {problems}:\n{lines}.", fix="Correct the data and try again.")


def find_problems(
    opens: Int64Array, values: npt.NDArray[np.float64], timeframe: Timeframe, name: RowName
) -> list[Finding]:
    """Return every kind of problem in these bars.

    Args:
        opens: (row,) microseconds since 1970; `NO_TIME` where there is none.
        values: (row, column) in the order of `BAR_COLUMNS`.
        timeframe: what the bars are said to be.
        name: says where a row is.
    """
    found = _Findings(name)
    _check_times(opens, values, timeframe, found)
    _check_values(values, found)
    return found.findings


class _Findings:
    """Collects the rows of each kind of problem."""

    def __init__(self, name: RowName) -> None:
        self.name = name
        self.findings: list[Finding] = []

    def add(self, what: str, mask: Mask, detail: Callable[[int], str]) -> None:
        """Report the rows where the mask is true, with a detail of the first of them."""
        rows = np.flatnonzero(mask)
        if len(rows):
            first = (int(row) for row in rows[:LISTED_EXAMPLES])
            examples = tuple(f"{self.name(row)} ({detail(row)})" for row in first)
            self.findings.append(Finding(what, len(rows), examples))


def _check_times(
    opens: Int64Array, values: npt.NDArray[np.float64], timeframe: Timeframe, found: _Findings
) -> None:
    absent = opens == NO_TIME

    def time(row: int) -> str:
        return describe_time(int(opens[row]))

    def twin(row: int) -> str:
        first = int(np.argmax(opens == opens[row]))
        same = np.array_equal(values[row], values[first], equal_nan=True)
        return f"{time(row)} is on {found.name(first)} too, with {'the same' if same else 'other'} values"

    found.add("missing times", absent, lambda _row: "no time")
    outside = ~absent & ((opens < _FIRST_TIME) | (opens >= _LAST_TIME))
    found.add("times outside 1678 to 2261", outside, time)
    if not absent.any() and (opens[1:] > opens[:-1]).all():
        _check_length(opens, timeframe, found)
        return
    # Looked for only now: it takes longer than all other checks together, and nearly no table needs it.
    double = pd.Index(opens).duplicated() & ~absent
    found.add("double times", double, twin)
    backwards = np.zeros(len(opens), np.bool_)
    backwards[1:] = (opens[1:] < opens[:-1]) & ~absent[1:] & ~double[1:]
    found.add("times out of order", backwards, lambda row: f"{time(row)} comes after {time(row - 1)}")


def _check_length(opens: Int64Array, timeframe: Timeframe, found: _Findings) -> None:
    """Find bars that cannot be of that timeframe."""
    if timeframe.unit is Unit.MONTH:
        times = opens.view("M8[us]")
        day = (times.astype("M8[D]") - times.astype("M8[M]").astype("M8[D]")).astype(np.int64) + 1
        # Stamped with the last days of the month before, in UTC, their end could not be told.
        found.add(
            "monthly bars that open after the 27th",
            day > 27,
            lambda row: describe_time(int(opens[row])),
        )
    steps = np.diff(opens)
    expected = timeframe.close_microseconds(opens[:-1]) - opens[:-1]
    overlap = steps < expected
    # The first bar of a session may be a short one, and so may a local day; most bars may not.
    if overlap.sum() * 2 > len(steps):
        found.add(
            f"bars closer together than {timeframe}",
            np.append(overlap, np.False_),
            lambda row: f"the next one opens {pd.Timedelta(int(steps[row]), unit='us')} later",
        )


def _check_values(values: npt.NDArray[np.float64], found: _Findings) -> None:
    def numbers(row: int, columns: Iterable[int]) -> str:
        return ", ".join(f"{BAR_COLUMNS[column]} {values[row, column]:.10g}" for column in columns)

    finite = np.isfinite(values)
    found.add(
        "missing or infinite values",
        np.logical_not(finite.all(axis=1)),
        lambda row: numbers(row, np.flatnonzero(~finite[row])),
    )
    # What is reported once becomes NaN, with which all comparisons are false.
    comparable = values if finite.all() else np.where(finite, values, np.nan)
    open_, high, low, close, volume = comparable.T
    not_positive = comparable[:, :_PRICES] <= 0
    found.add(
        "prices of zero or less",
        np.logical_or.reduce(not_positive, axis=1),
        lambda row: numbers(row, np.flatnonzero(not_positive[row])),
    )
    found.add(
        "high below another price",
        (high < open_) | (high < low) | (high < close),
        lambda row: numbers(row, [1, *np.flatnonzero(comparable[row, :_PRICES] > high[row])]),
    )
    found.add(
        "low above another price",
        # A low above the high is among the highs already.
        ((low > open_) | (low > close)) & ~(low > high),
        lambda row: numbers(row, [2, *np.flatnonzero(comparable[row, :_PRICES] < low[row])]),
    )
    found.add("negative volume", volume < 0, lambda row: numbers(row, [4]))
