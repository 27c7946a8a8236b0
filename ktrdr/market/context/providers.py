"""Who provides context: what an entry of ``context_data`` gives, and the files that it is read from."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import pandas as pd

from ktrdr.errors import DataError
from ktrdr.market.context.publication import cot_publication, midnight
from ktrdr.market.context.series import ContextSeries, ContextTable, known_rows, plain_series
from ktrdr.market.context.series_file import Observations, read_observations
from ktrdr.market.directory import BarDirectory
from ktrdr.market.naming import did_you_mean, listed
from ktrdr.market.timeframe import Timeframe
from ktrdr.market.times import MICROSECONDS_PER_DAY, Int64Array, to_microseconds

_RANK_REPORTS = 52
"""A year of weekly reports."""


@dataclass(frozen=True, slots=True)
class SymbolContext:
    """Provider ``ib``: the bars of another symbol, each known at its close."""

    symbol: str
    timeframe: str

    @property
    def source_ids(self) -> tuple[str, ...]:
        """What an indicator's ``data_source`` may name."""
        return (self.symbol,)

    def definition(self, source_id: str) -> str:
        """Say what the series is, and since when its rows are known."""
        return f"bars of {source_id} {self.timeframe}, each known at its close"

    def read(self, source_id: str, data_dir: Path) -> ContextSeries:
        """Return the symbol's bars by their closes."""
        loaded = BarDirectory(data_dir).read(self.symbol, self.timeframe)
        table = loaded.bars.copy(deep=False)
        table.index = Timeframe.parse(self.timeframe).close_times(pd.DatetimeIndex(table.index))
        return ContextSeries(source_id, table, (loaded.file.path,))


@dataclass(frozen=True, slots=True)
class FredContext:
    """Provider ``fred``: series of ``fred/SERIES.csv``, known when they were published.

    A date of FRED says what a value is about. When it was known is in the file's column ``published``, or
    follows from ``publication_lag``; no rule holds for every series.
    """

    series: tuple[str, ...]
    publication_lag: str | None = None
    """From the beginning of a date, in New York, to when its value was known, as in ``2d``."""

    @property
    def source_ids(self) -> tuple[str, ...]:
        """What an indicator's ``data_source`` may name."""
        spread = (f"yield_spread_{self.series[0]}_{self.series[1]}",) if len(self.series) > 1 else ()
        return (*(f"fred_{name}" for name in self.series), *spread)

    def definition(self, source_id: str) -> str:
        """Say what the series is, and since when its rows are known."""
        names = self._names(source_id)
        since = "when published"
        if self.publication_lag is not None:
            since += f", or {self.publication_lag} after its date where the file does not say"
        return f"{' less '.join(f'fred/{name}.csv' for name in names)}, each value known {since}"

    def _names(self, source_id: str) -> tuple[str, ...]:
        """Return the series that it is made of: one, or two, of which it is the difference."""
        single = tuple(name for name in self.series if source_id == f"fred_{name}")
        return single or self.series[:2]

    def read(self, source_id: str, data_dir: Path) -> ContextSeries:
        """Return one series, or the first less the second."""
        parts = [self._read(source_id, name, data_dir) for name in self._names(source_id)]
        if len(parts) == 1:
            return parts[0]
        first, second = parts
        return ContextSeries(
            source_id,
            _difference(first.table, second.table),
            (*first.files, *second.files),
            (*first.notes, *second.notes),
        )

    def _read(self, source_id: str, name: str, data_dir: Path) -> ContextSeries:
        path = _find(data_dir / "fred", name, "series")
        observations = read_observations(path, ("value", "close", name.lower()))
        published = observations.published
        if published is None:
            published = self._lagged(observations.dates, path)
        return _series(source_id, path, observations, published)

    def _lagged(self, dates: tuple[date, ...], path: Path) -> Int64Array:
        starts = np.array([midnight(day) for day in dates], np.int64)
        if self.publication_lag is None:
            raise DataError(
                f"{path} has no column 'published', and its dates say what a value is about, not when it "
                "was known.",
                fix="Add the column (it is realtime_start in ALFRED), or set publication_lag in the entry of "
                "context_data: the longest time from a date to its publication, as in `2d` for a daily rate.",
            )
        lag = Timeframe.parse(self.publication_lag)
        known_at = lag.close_microseconds(starts)
        period = float(np.median(np.diff(np.array(dates, "M8[D]")).astype(np.int64))) if len(dates) > 1 else 1
        if float((known_at - starts).min()) < period * MICROSECONDS_PER_DAY - 3_600_000_000:  # summer time
            raise DataError(
                f"publication_lag {self.publication_lag} is shorter than the {period:g} days from a date to "
                f"the next in {path}: a value would be known before the time that it is about has passed.",
                fix="Count from the first day that a value is about, or add a column 'published'.",
            )
        return known_at


@dataclass(frozen=True, slots=True)
class CotContext:
    """Provider ``cftc_cot``: net positions of ``cot/REPORT.csv``, known when the report was published.

    Without a column ``published`` that is by the CFTC's schedule.
    """

    report: str

    @property
    def source_ids(self) -> tuple[str, ...]:
        """What an indicator's ``data_source`` may name."""
        return (f"cot_{self.report}_net_pos", f"cot_{self.report}_net_pct")

    def definition(self, source_id: str) -> str:
        """Say what the series is, and since when its rows are known."""
        rank = "" if source_id == self.source_ids[0] else f", ranked among {_RANK_REPORTS} reports"
        return f"net positions of cot/{self.report}.csv{rank}, each known when the report was published"

    def read(self, source_id: str, data_dir: Path) -> ContextSeries:
        """Return the net positions, or their rank among those of 52 reports, in percent."""
        path = _find(data_dir / "cot", self.report, "report")
        observations = read_observations(path, ("net_position", "net_pos", "value"))
        published, notes = observations.published, []
        if published is None:
            published = cot_publication(observations.dates)
            notes = ["published by the CFTC's schedule, as the file has no column 'published'"]
        series = _series(source_id, path, observations, published, notes)
        if source_id == self.source_ids[0]:
            return series
        if len(series.table) < _RANK_REPORTS:
            raise DataError(
                f"{path} has {len(series.table)} reports; {source_id} is the rank among {_RANK_REPORTS}.",
                fix="Add earlier reports.",
            )
        known_at = to_microseconds(series.table.index)[_RANK_REPORTS - 1 :]
        table = plain_series(known_at, _ranks(series.table["close"].to_numpy()))
        return ContextSeries(source_id, table, series.files, series.notes)


ContextEntry: TypeAlias = SymbolContext | FredContext | CotContext
"""One entry of ``context_data``."""

PROVIDERS = ("cftc_cot", "fred", "ib")
"""Names of the providers."""


def read_context(sources: Mapping[str, ContextEntry], data_dir: Path) -> tuple[ContextSeries, ...]:
    """Return the series of these source ids, whole.

    Args:
        sources: source id → the entry that gives it.
        data_dir: has bars as ``SYMBOL_TIMEFRAME.csv``, and series in ``fred`` and ``cot``.

    Raises:
        DataError: a file is missing (the error says which there are), or has problems, listed by line.
    """
    return tuple(entry.read(source_id, data_dir) for source_id, entry in sources.items())


def _series(
    source_id: str,
    path: Path,
    observations: Observations,
    published: Int64Array,
    notes: Iterable[str] = (),
) -> ContextSeries:
    # What was published only after a later value was is out of date when it comes.
    newest = np.minimum.accumulate(published[::-1])[::-1] == published
    overtaken = len(newest) - int(newest.sum())
    late = (f"left out, as a later one had been published: {overtaken:,}",) if overtaken else ()
    table = plain_series(published[newest], observations.values[newest])
    return ContextSeries(source_id, table, (path,), (*observations.notes, *late, *notes))


def _difference(first: ContextTable, second: ContextTable) -> ContextTable:
    """Return first less second, with a row whenever one of them has one and both are known."""
    first_known, second_known = to_microseconds(first.index), to_microseconds(second.index)
    moments = np.union1d(first_known, second_known)
    moments = moments[moments >= max(first_known[0], second_known[0])]
    values = [
        table["close"].to_numpy()[known_rows(known_at, moments)]
        for table, known_at in ((first, first_known), (second, second_known))
    ]
    return plain_series(moments, values[0] - values[1])


def _ranks(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the share of the 51 values before each that is lower, in percent, from the 52nd value on."""
    windows = np.lib.stride_tricks.sliding_window_view(values, _RANK_REPORTS)
    lower = (windows < windows[:, -1:]).sum(axis=1)
    ranks: npt.NDArray[np.float64] = 100 * lower / (_RANK_REPORTS - 1)
    return ranks


def _find(directory: Path, name: str, what: str) -> Path:
    path = directory / f"{name}.csv"
    if path.is_file():
        return path
    there = sorted(other.stem for other in directory.glob("*.csv")) if directory.is_dir() else []
    told = f"There is {listed(there)}." if there else "There is none at all."
    raise DataError(
        f"There is no {what} '{name}' in {directory.absolute()}.{did_you_mean(name, there)} {told}",
        fix=f"Add {path}.",
    )
