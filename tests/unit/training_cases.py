"""Jobs for tests of the executor: real strategies on real bars, small enough to train in a second."""

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pandas as pd
from pydantic import JsonValue

from ktrdr.events.references import BlobRef, DatasetRef
from ktrdr.market.resample import resample
from ktrdr.market.snapshot import encode_snapshot
from ktrdr.market.timeframe import Timeframe
from ktrdr.training.job import Dataset, TrainingJob
from ktrdr.training.progress import Progress

REPOSITORY = Path(__file__).parents[2]
MOMENTUM = (REPOSITORY / "strategies" / "eurusd_momentum.yaml").read_text()
TWO_TIMEFRAMES = (REPOSITORY / "strategies" / "eurusd_two_timeframes.yaml").read_text()

QUICK: dict[str, JsonValue] = {
    "training.epochs": 3,
    "training.early_stopping": False,
    "model.architecture.hidden_layers": [16, 8],
}


def dataset(bars: pd.DataFrame, directory: Path, symbol: str = "EURUSD", timeframe: str = "1h") -> Dataset:
    """Write a snapshot of the bars."""
    content = encode_snapshot(bars)
    sha256 = hashlib.sha256(content).hexdigest()
    path = directory / f"{sha256}.parquet"
    path.write_bytes(content)
    ref = DatasetRef(
        symbol=symbol,
        timeframe=timeframe,
        blob=BlobRef(uri=f"blob:{sha256}", sha256=sha256, size=len(content)),
        rows=len(bars),
        start=bars.index[0].to_pydatetime(),
        end=bars.index[-1].to_pydatetime(),
    )
    return Dataset(ref, path)


def job(
    bars: pd.DataFrame,
    directory: Path,
    strategy: str = MOMENTUM,
    overrides: Mapping[str, JsonValue] | None = None,
    seed: int = 7,
    coarser: str | None = None,
) -> TrainingJob:
    """Return a job on these hourly bars, and on a coarser timeframe made of them if there is to be one."""
    datasets = [dataset(bars, directory)]
    if coarser:
        made = resample(bars, Timeframe.parse("1h"), Timeframe.parse(coarser))
        datasets.append(dataset(made, directory, timeframe=coarser))
    return TrainingJob(
        operation_id="op-test",
        attempt=1,
        strategy_name="eurusd_momentum",
        strategy_yaml=strategy,
        datasets=tuple(datasets),
        seed=seed,
        overrides={**QUICK, **(overrides or {})},
    )


def with_bars(original: TrainingJob, bars: pd.DataFrame, directory: Path) -> TrainingJob:
    """Return the same job on other bars."""
    return replace(original, datasets=(dataset(bars, directory),))


class Recorder:
    """Keeps all progress."""

    def __init__(self) -> None:
        self.seen: list[Progress] = []

    def on_progress(self, progress: Progress) -> None:
        self.seen.append(progress)
