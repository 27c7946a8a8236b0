"""From what a user asks for to a request that an agent can run: strategy checked, bars snapshotted."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import JsonValue

from ktrdr.backend.wishes import Preparation, StrategyText, digest_of
from ktrdr.blobs.store import BlobStore
from ktrdr.errors import DataError
from ktrdr.events import DatasetRef, StrategyDocument

if TYPE_CHECKING:
    from ktrdr.market.context import ContextReport
    from ktrdr.market.time_range import Moment
    from ktrdr.strategy import Strategy

_WARM_UP = 50
"""So many times an indicator's warm-up before the first bar, what an average remembers is some 1e-12."""


@dataclass(frozen=True, slots=True)
class PreparedTraining:
    """A training that is ready to be submitted."""

    strategy: StrategyDocument
    symbol: str
    """Or what several are called together."""
    timeframe: str
    """The base timeframe."""
    datasets: tuple[DatasetRef, ...]
    files: tuple[Path, ...]
    """Where bars and context are from."""
    told: Preparation
    """What of it is told to who asks."""

    def fingerprint(self, seed: int | None) -> str:
        """Return the same text for the same wish: strategy, overrides, bars and the seed asked for."""
        wish = {
            "strategy": self.strategy.sha256,
            "overrides": self.strategy.overrides,
            "datasets": [[d.symbol, d.timeframe, d.blob.sha256] for d in self.datasets],
            "seed": seed,
        }
        return digest_of(wish)


def prepare_training(
    strategy: str | Path | StrategyText,
    *,
    strategies_dir: Path,
    data_dir: Path,
    blobs: BlobStore,
    start: "Moment" = None,
    end: "Moment" = None,
    overrides: Mapping[str, JsonValue] | None = None,
) -> PreparedTraining:
    """Check a strategy and snapshot exactly the bars and context that it needs into the blob store.

    Args:
        strategy: a file, a name in ``strategies_dir``, or the text itself.
        strategies_dir: where strategies are looked up by name.
        data_dir: has bars as ``SYMBOL_TIMEFRAME.csv`` or ``.parquet``, and context series in directories.
        blobs: where the snapshots go.
        start: first bar, inclusive; default: as the strategy says, else the first there is.
        end: last bar, inclusive, or the last day; likewise.
        overrides: dotted path → value, on top of the YAML.

    Raises:
        StrategyError: with every problem in the strategy.
        DataError: no such bars or series, or some that cannot be used.
    """
    # Not at module level: they bring pandas, which half of the backend's users do without.
    from ktrdr.market.directory import BarDirectory
    from ktrdr.market.snapshot import write_snapshot
    from ktrdr.market.timeframe import Timeframe
    from ktrdr.market.times import to_microseconds
    from ktrdr.strategy import parse_strategy

    found = strategy_text(strategy, strategies_dir)
    text, source = found.yaml, found.source
    parsed = parse_strategy(text, source=source, overrides=overrides or {})
    wanted = parsed.strategy
    directory = BarDirectory(data_dir)
    datasets: list[DatasetRef] = []
    told: list[str] = []
    files: list[Path] = []
    moments: list[int] = []
    for symbol, timeframe in product(wanted.symbols, wanted.timeframes):
        loaded = directory.read(symbol, timeframe, start or wanted.start, end or wanted.end)
        told.append(loaded.report.describe())
        files.append(loaded.file.path)
        datasets.append(write_snapshot(loaded.bars, symbol, timeframe, blobs))
        ends = to_microseconds(loaded.bars.index[[0, -1]])
        moments += [int(ends[0]), int(Timeframe.parse(timeframe).close_microseconds(ends)[1])]
    for report, origins, dataset in _snapshot_context(wanted, data_dir, min(moments), max(moments), blobs):
        told.append(report.describe())
        files += origins
        datasets.append(dataset)
    document = StrategyDocument(
        name=parsed.name, yaml=text, sha256=parsed.sha256, overrides=dict(overrides or {})
    )
    return PreparedTraining(
        strategy=document,
        symbol=wanted.symbol,
        timeframe=wanted.base_timeframe,
        datasets=tuple(datasets),
        files=tuple(files),
        told=Preparation(source, parsed.warnings, tuple(told)),
    )


def _snapshot_context(
    strategy: "Strategy", data_dir: Path, first: int, last: int, blobs: BlobStore
) -> Iterator[tuple["ContextReport", tuple[Path, ...], DatasetRef]]:
    """Snapshot what bars from ``first`` to ``last`` (microseconds since 1970) can see of each series."""
    from ktrdr.market.context import ContextReport, needed_rows, read_context
    from ktrdr.market.snapshot import write_context_snapshot
    from ktrdr.market.times import describe_time, to_microseconds

    for series in read_context(strategy.context, data_dir):
        before = _WARM_UP * (strategy.feature_plan.warmup_rows(series.source_id) + 1)
        table = needed_rows(series.table, first, last, before)
        if table.empty:
            since = describe_time(int(to_microseconds(series.table.index[:1])[0]))
            raise DataError(
                f"Nothing of {series.source_id} is known before the bars end, "
                f"{describe_time(last)} UTC: it begins at {since}.",
                fix=f"Add earlier rows to {series.files[0]}, or train on later bars.",
            )
        report = ContextReport.of(series, table, last)
        yield report, series.files, write_context_snapshot(table, series.source_id, blobs)


def strategy_text(strategy: str | Path | StrategyText, strategies_dir: Path) -> StrategyText:
    """Return a strategy's text, wherever it is.

    Raises:
        StrategyError: there is no such file, or it cannot be read.
    """
    from ktrdr.strategy import StrategyDirectory, read_strategy

    if isinstance(strategy, StrategyText):
        return strategy
    path = StrategyDirectory(strategies_dir).find(strategy)
    return StrategyText(read_strategy(path), str(path))
