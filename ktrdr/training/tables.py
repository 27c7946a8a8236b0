"""The datasets of a job, read: bars by symbol and timeframe, and context by source."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import pandas as pd

from ktrdr.errors import DataError
from ktrdr.events.references import DatasetKind
from ktrdr.features.compute import of_context
from ktrdr.market.bars import Bars
from ktrdr.market.context import ContextTable
from ktrdr.market.snapshot import read_snapshot
from ktrdr.strategy.strategy import Strategy
from ktrdr.training.job import Dataset, TrainingJob


@dataclass(frozen=True, slots=True)
class Tables:
    """What a strategy is trained on."""

    bars: Mapping[str, Mapping[str, Bars]]
    """Symbol → timeframe → bars."""
    context: Mapping[str, ContextTable]
    """Source → rows, the same for every symbol."""
    hashes: Mapping[str, Mapping[str, str]]
    """Symbol → timeframe, or `of_context` a source → SHA-256 of that table's snapshot."""
    base_timeframe: str

    def base(self, symbol: str) -> Bars:
        """Return the bars of a symbol that become rows."""
        return self.bars[symbol][self.base_timeframe]

    @property
    def rows(self) -> int:
        """Bars of the base timeframe, of all symbols."""
        return sum(len(self.base(symbol)) for symbol in self.bars)


def read_tables(job: TrainingJob, strategy: Strategy, check: Callable[[], None]) -> Tables:
    """Read the snapshots that a strategy needs.

    Args:
        job: has the datasets.
        strategy: says which it needs.
        check: called between them; raises if the training is cancelled.

    Raises:
        DataError: one is missing, is there twice, or cannot be used.
    """
    context = {}
    for source in strategy.context:
        check()
        context[source] = _read(_find(job, DatasetKind.CONTEXT, source), f"context {source}", job)
    bars: dict[str, dict[str, Bars]] = {}
    for symbol in strategy.symbols:
        bars[symbol] = {}
        for timeframe in strategy.timeframes:
            check()
            found = _find(job, DatasetKind.BARS, symbol, timeframe)
            bars[symbol][timeframe] = _read(found, f"{symbol} {timeframe}", job)
    hashes = {symbol: _hashes(job, symbol) for symbol in strategy.symbols}
    return Tables(bars, context, hashes, strategy.base_timeframe)


def _find(job: TrainingJob, kind: DatasetKind, symbol: str, timeframe: str | None = None) -> list[Dataset]:
    return [
        dataset
        for dataset in job.datasets
        if (dataset.ref.kind, dataset.ref.symbol) == (kind, symbol)
        and timeframe in (None, dataset.ref.timeframe)
    ]


def _read(found: list[Dataset], what: str, job: TrainingJob) -> pd.DataFrame:
    if len(found) != 1:
        given = ", ".join(dataset.ref.name for dataset in job.datasets)
        raise DataError(
            f"The strategy needs one dataset of {what}; given: {given or 'none'}.",
            fix="Submit the training again, so that its data is prepared anew.",
        )
    return read_snapshot(found[0].path, found[0].ref.kind)


def _hashes(job: TrainingJob, symbol: str) -> dict[str, str]:
    return {
        ref.timeframe if ref.kind is DatasetKind.BARS else of_context(ref.symbol): ref.blob.sha256
        for ref in (dataset.ref for dataset in job.datasets)
        if ref.kind is DatasetKind.CONTEXT or ref.symbol == symbol
    }
