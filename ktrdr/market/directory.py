"""Bars on disk: a directory of ``SYMBOL_TIMEFRAME.csv`` and ``.parquet`` files."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ktrdr.errors import DataError
from ktrdr.market.bars import Bars
from ktrdr.market.csv_reader import read_csv
from ktrdr.market.gaps import BarReport, TradingWeek
from ktrdr.market.naming import did_you_mean, listed
from ktrdr.market.parquet_reader import read_parquet
from ktrdr.market.resample import resample
from ktrdr.market.time_range import Moment, TimeRange
from ktrdr.market.timeframe import Timeframe
from ktrdr.market.times import describe_time, to_microseconds

# As names in events, so that a symbol is safe in file names and messages.
_SYMBOL = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.@+-]{0,127}", re.ASCII)
_READERS = {".csv": read_csv, ".parquet": read_parquet}


@dataclass(frozen=True, slots=True)
class BarFile:
    """A file of bars that is there."""

    symbol: str
    timeframe: Timeframe
    path: Path


@dataclass(frozen=True, slots=True)
class LoadedBars:
    """Bars, and where they come from."""

    bars: Bars
    file: BarFile
    resampled: bool
    """Whether they were made from the file's finer bars."""
    report: BarReport
    """Of the file's own bars within the range."""


class BarDirectory:
    """Reads bars from a directory.

    A file's name is a symbol (letters, digits and ``_ . @ + -``, beginning with a letter or digit), an
    underscore and a timeframe. Files with other names, and directories below, are left alone.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def list(self) -> tuple[BarFile, ...]:
        """Return the files of bars by symbol and timeframe, the finest first.

        Raises:
            DataError: there is no such directory.
        """
        return self._scan()[0]

    def load(self, symbol: str, timeframe: str | Timeframe, start: Moment = None, end: Moment = None) -> Bars:
        """Return the bars that `read` returns, without the rest."""
        return self.read(symbol, timeframe, start, end).bars

    def read(
        self, symbol: str, timeframe: str | Timeframe, start: Moment = None, end: Moment = None
    ) -> LoadedBars:
        """Return bars that open within the range, checked, and a report of what they cover.

        If there is no file of that timeframe they are resampled from the coarsest finer one whose bars fit.

        Args:
            symbol: as in the file's name, case included.
            timeframe: of the bars.
            start: the first time or day; None for all there is.
            end: the last time, or the last day, which is included whole; None for all there is.

        Raises:
            DataError: there are no such bars (the error says what there is), or they have problems.
        """
        wanted = Timeframe.parse(timeframe)
        limits = TimeRange.parse(start, end)
        file = self._choose(symbol, wanted)
        whole = _READERS[file.path.suffix](file.path, file.timeframe)
        opens = to_microseconds(whole.index)
        resampled = file.timeframe.duration != wanted.duration
        if resampled:
            # Before cutting, so that a coarser bar is the same whatever range is asked for.
            bars = resample(whole, file.timeframe, wanted)
            bars = bars.iloc[limits.rows(to_microseconds(bars.index))]
        else:
            bars = whole.iloc[limits.rows(opens)]
        within = opens[limits.rows(opens)]
        if bars.empty or not len(within):
            made = f" of {wanted}, made of {file.timeframe}," if resampled else ""
            raise DataError(
                f"{file.path} has no bars{made} {limits.describe()}".rstrip(" ,")
                + f": its bars open from {describe_time(opens[0])} to {describe_time(opens[-1])} UTC.",
                fix="Name a range that has some of them, or add bars to the file.",
            )
        report = TradingWeek.learn(opens, file.timeframe).report(within, str(file.path))
        return LoadedBars(bars, file, resampled, report)

    def _scan(self) -> tuple[tuple[BarFile, ...], tuple[str, ...]]:
        """Return the files of bars, and the names that look like data but do not name a timeframe."""
        try:
            paths = sorted(path for path in self.root.iterdir() if path.suffix in _READERS and path.is_file())
        except OSError as error:
            raise DataError(
                f"The data directory {self.root} cannot be read: {error.strerror}.",
                fix="Set KTRDR_DATA_DIR or pass --data.",
            ) from error
        files: list[BarFile] = []
        others: list[str] = []
        for path in paths:
            symbol, _, timeframe = path.stem.rpartition("_")
            try:
                parsed = Timeframe.parse(timeframe)
            except DataError:
                parsed = None
            if parsed is not None and _SYMBOL.fullmatch(symbol):
                files.append(BarFile(symbol, parsed, path))
            else:
                others.append(path.name)
        files.sort(key=lambda file: (file.symbol, file.timeframe.duration, file.path.name))
        return tuple(files), tuple(others)

    def _choose(self, symbol: str, wanted: Timeframe) -> BarFile:
        """Return the file to read."""
        files, others = self._scan()
        of_symbol = [file for file in files if file.symbol == symbol]
        if not of_symbol:
            raise self._no_symbol(symbol, files, others)
        # The same timeframe by another name (60m) is as good; the very name is better.
        fitting = [file for file in of_symbol if wanted.is_multiple_of(file.timeframe)]
        exact = [file for file in fitting if file.timeframe == wanted]
        if not fitting:
            raise self._no_timeframe(symbol, wanted, of_symbol)
        coarsest = max(file.timeframe.duration for file in fitting)
        best = exact or [file for file in fitting if file.timeframe.duration == coarsest]
        if len(best) > 1:
            names = " and ".join(file.path.name for file in best)
            raise DataError(
                f"{self.root} has {names}, and nothing says which is right.", fix="Move one of them away."
            )
        return best[0]

    def _no_symbol(self, symbol: str, files: tuple[BarFile, ...], others: tuple[str, ...]) -> DataError:
        meant = did_you_mean(symbol, sorted({file.symbol for file in files}))
        there = (
            f"There is {listed(_describe(file) for file in files)}." if files else "It has no bars at all."
        )
        ignored = f" Not named as SYMBOL_TIMEFRAME: {listed(others)}." if others else ""
        return DataError(
            f"There are no bars of '{symbol}' in {self.root.absolute()}.{meant} {there}{ignored}",
            fix=f"Add {symbol}_1h.csv, say." if _SYMBOL.fullmatch(symbol) else None,
        )

    def _no_timeframe(self, symbol: str, wanted: Timeframe, of_symbol: Sequence[BarFile]) -> DataError:
        there = listed(file.path.name for file in of_symbol)
        if all(wanted < file.timeframe for file in of_symbol):
            problem = f"Timeframe {wanted} is finer than the data of {symbol}"
        else:
            problem = f"Bars of {wanted} cannot be made from the data of {symbol}"
        return DataError(
            f"{problem}: {self.root} has {there}.",
            fix=f"Use a timeframe that there is, or add {symbol}_{wanted}.csv.",
        )


def _describe(file: BarFile) -> str:
    return f"{file.symbol} {file.timeframe}"
