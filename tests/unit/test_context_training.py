"""Trainings with context, from files to a model that predicts."""

import asyncio
import io
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from ktrdr.app.embedded import prepare, train_embedded
from ktrdr.app.preparing import Preparing
from ktrdr.backend.preparation import PreparedTraining
from ktrdr.backend.states import State
from ktrdr.backend.wishes import StrategyText, TrainingWish
from ktrdr.blobs.directory import DirectoryBlobStore
from ktrdr.clock import SystemClock
from ktrdr.errors import DataError
from ktrdr.events import DatasetKind
from ktrdr.market.context import ContextTable
from ktrdr.market.snapshot import encode_snapshot, read_snapshot
from ktrdr.models.bundle import unpack
from ktrdr.models.loaded import LoadedModel, load_model
from ktrdr.settings import Settings
from ktrdr.training.cancellation import ManualCancellation
from ktrdr.training.executor import TrainingExecutor
from ktrdr.training.job import Dataset, TrainingJob
from ktrdr.training.progress import SilentObserver
from tests.unit.backend_cases import settings_in
from tests.unit.context_cases import known, write
from tests.unit.served_cases import ktrdr
from tests.unit.training_cases import REPOSITORY

SAMPLE = (REPOSITORY / "strategies" / "eurusd_context.yaml").read_text()
SPREAD = "yield_spread_DEMO_RATE_DAILY_DEMO_RATE_MONTHLY"
SOURCES = [SPREAD, "cot_DEMO_net_pct", "GOOGL"]
WISH = TrainingWish(
    strategy="eurusd_context", start="2017-03-01", end="2017-04-30", overrides={"training.epochs": 2}, seed=7
)


class LateClock(SystemClock):
    """A clock by which every file was last changed long ago."""

    def now(self) -> datetime:
        return super().now() + timedelta(hours=1)


def installation(directory: Path) -> Settings:
    return settings_in(
        directory, data_dir=REPOSITORY / "data", strategies_dir=REPOSITORY / "strategies", device="cpu"
    )


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return installation(tmp_path)


@pytest.fixture
def blobs(settings: Settings) -> DirectoryBlobStore:
    return DirectoryBlobStore(settings.blobs_dir)


def on_own_files(directory: Path, change: Mapping[str, Any] | None = None) -> tuple[Settings, TrainingWish]:
    """Return an installation with its own series, and a wish for a strategy that uses it."""
    data = directory / "data"
    data.mkdir()
    (data / "EURUSD_1h.csv").symlink_to(REPOSITORY / "data" / "EURUSD_1h.csv")
    strategy = yaml.safe_load(SAMPLE)
    strategy["context_data"] = [{"provider": "fred", "series": "R", **(change or {})}]
    strategy["indicators"] = {"mean": {"type": "sma", "period": 2, "data_source": "fred_R"}}
    strategy["fuzzy_sets"] = {}
    strategy["nn_inputs"] = [{"raw_indicator": "mean", "timeframes": "all", "normalization": "zscore"}]
    text = StrategyText(yaml.safe_dump(strategy, sort_keys=False), "s.yaml")
    return settings_in(directory, data_dir=data), replace(WISH, strategy=text)


def context_of(prepared: PreparedTraining, blobs: DirectoryBlobStore) -> dict[str, ContextTable]:
    return {
        dataset.symbol: read_snapshot(blobs.get(dataset.blob, dataset.blob.size), dataset.kind)
        for dataset in prepared.datasets
        if dataset.kind is DatasetKind.CONTEXT
    }


def execute(prepared: PreparedTraining, blobs: DirectoryBlobStore, directory: Path) -> LoadedModel:
    datasets = []
    for dataset in prepared.datasets:
        path = directory / dataset.blob.sha256
        path.write_bytes(blobs.get(dataset.blob, dataset.blob.size))
        datasets.append(Dataset(dataset, path))
    job = TrainingJob(
        "op-test",
        1,
        prepared.strategy.name,
        prepared.strategy.yaml,
        tuple(datasets),
        seed=7,
        overrides=prepared.strategy.overrides,
    )
    bundle = TrainingExecutor().run(job, SilentObserver(), ManualCancellation()).bundle
    model = directory / "model"
    model.mkdir()
    for name, content in unpack(bundle).items():
        (model / name).write_bytes(content)
    return load_model(model)


# --- what is taken along


def test_every_series_goes_along_as_content_with_rows_to_warm_up_and_none_that_comes_too_late(
    settings: Settings, blobs: DirectoryBlobStore
) -> None:
    prepared = prepare(WISH, settings, blobs)
    assert [(dataset.kind, dataset.symbol, dataset.timeframe) for dataset in prepared.datasets] == [
        (DatasetKind.BARS, "EURUSD", "1h"),
        (DatasetKind.CONTEXT, SPREAD, "1d"),
        (DatasetKind.CONTEXT, "cot_DEMO_net_pct", "7d"),
        (DatasetKind.CONTEXT, "GOOGL", "1d"),
    ]
    first, last = prepared.datasets[0].start, prepared.datasets[0].end
    for dataset in prepared.datasets[1:]:
        assert dataset.start < first
        assert dataset.end <= last + pd.Timedelta("1h")
    googl = context_of(prepared, blobs)["GOOGL"]
    before = (googl.index <= pd.Timestamp("2017-03-01", tz="UTC")).sum()
    assert before == 50 * 6 + 1  # of a warm-up of five rows
    assert f"GOOGL_1d.csv: {len(googl)} rows of GOOGL, known from " in prepared.told.bars[-1]


def test_the_same_content_is_the_same_wish_and_another_value_is_another(tmp_path: Path) -> None:
    settings, wish = on_own_files(tmp_path)
    series = settings.data_dir / "fred" / "R.csv"
    blobs = DirectoryBlobStore(settings.blobs_dir)

    def fingerprint(*values: str) -> str:
        rows = [f"2017-0{month}-01,{value},2017-0{month}-02" for month, value in enumerate(values, 1)]
        write(series, "date,value,published", *rows)
        return prepare(wish, settings, blobs).fingerprint(7)

    assert fingerprint("1", "2", "3", "4") == fingerprint("1", "2", "3", "4", "5", "6")  # known too late
    assert fingerprint("1", "2", "3", "4") != fingerprint("1", "2", "3", "4.5")


def test_a_series_that_changes_is_read_anew(tmp_path: Path) -> None:
    settings, wish = on_own_files(tmp_path, {"publication_lag": "2d"})
    series = settings.data_dir / "fred" / "R.csv"
    write(series, "date,value", "2017-01-01,1", "2017-01-02,2")
    preparing = Preparing(settings, DirectoryBlobStore(settings.blobs_dir), LateClock())
    preparing.prepare(wish)
    remembered = preparing.prepare(wish)
    assert preparing.prepare(wish) is remembered
    write(series, "date,value", "2017-01-01,1", "2017-01-02,30")
    assert preparing.prepare(wish).fingerprint(7) != remembered.fingerprint(7)


def test_a_series_that_begins_after_the_bars_end_is_refused(tmp_path: Path) -> None:
    settings, wish = on_own_files(tmp_path)
    write(settings.data_dir / "fred" / "R.csv", "date,value,published", "2017-06-01,1,2017-06-02")
    with pytest.raises(
        DataError, match="Nothing of fred_R is known before the bars end, 2017-05-01"
    ) as caught:
        prepare(wish, settings, DirectoryBlobStore(settings.blobs_dir))
    assert "it begins at 2017-06-03 04:00" in str(caught.value)


def test_long_silences_are_told(tmp_path: Path) -> None:
    settings, wish = on_own_files(tmp_path, {"publication_lag": "1d"})
    days = [f"2017-02-{day:02},{day}" for day in (1, 2, 3, 4, 15, 16, 17, 18)]
    write(settings.data_dir / "fred" / "R.csv", "date,value", *days)
    (_, line) = prepare(wish, settings, DirectoryBlobStore(settings.blobs_dir)).told.bars
    assert "8 rows of fred_R, known from 2017-02-02 05:00 to 2017-02-19 05:00 UTC" in line
    assert "nothing new for 11.0 days from 2017-02-05 05:00 on" in line
    assert "nothing new in the last 70.8 days of the bars" in line


# --- snapshots


def test_a_snapshot_of_a_series_may_have_any_finite_value_and_that_of_bars_may_not() -> None:
    table = known(["2020-01-01", "2020-01-02"], [-1.5, 0.0])
    content = encode_snapshot(table, DatasetKind.CONTEXT)
    pd.testing.assert_frame_equal(read_snapshot(content, DatasetKind.CONTEXT), table)
    with pytest.raises(DataError, match="prices of zero or less"):
        read_snapshot(content)


def test_a_snapshot_of_a_series_that_goes_back_in_time_or_is_not_finite_is_refused() -> None:
    table = known(["2020-01-01", "2020-01-02"], [1.0, np.inf])
    with pytest.raises(DataError, match=r"missing or infinite values: row 2 \(2020-01-02 00:00\)"):
        encode_snapshot(table, DatasetKind.CONTEXT)
    with pytest.raises(DataError, match=r"times that are not later than the one before: row 2"):
        encode_snapshot(known(["2020-01-01", "2020-01-02"], [1.0, 2.0]).iloc[::-1], DatasetKind.CONTEXT)


# --- training, and predicting


def test_a_training_over_events_makes_a_model_that_predicts_from_files_what_it_was_evaluated_at(
    settings: Settings,
) -> None:
    record = asyncio.run(train_embedded(WISH, settings, stop=asyncio.Event()))
    assert record.state is State.COMPLETED, record.message
    assert record.model is not None
    path = settings.models_dir / record.model
    model = load_model(path)
    assert list(model.context) == SOURCES
    assert [dataset.symbol for dataset in model.metadata.datasets] == ["EURUSD", *SOURCES]
    assert {feature.feature_id: feature.data_source for feature in model.metadata.features} == {
        "1h_rsi_low": None,
        "1h_rsi_high": None,
        "1h_carry_falls": SPREAD,
        "1h_carry_rises": SPREAD,
        "1h_positions_crowded_short": "cot_DEMO_net_pct",
        "1h_positions_balanced": "cot_DEMO_net_pct",
        "1h_positions_crowded_long": "cot_DEMO_net_pct",
        "1h_share_roc_5_raw": "GOOGL",
    }
    assert "context GOOGL" in (path / "report.html").read_text()
    evaluated = pd.read_parquet(io.BytesIO((path / "evaluation.parquet").read_bytes()))
    evaluated = evaluated.set_index("timestamp")
    bars = pd.read_csv(settings.data_dir / "EURUSD_1h.csv", index_col="timestamp", parse_dates=True)
    predicted = model.predict(bars["2017-03-01":"2017-04-30"], model.read_context(settings.data_dir))
    probabilities = [f"p_{name}" for name in model.metadata.classes]
    np.testing.assert_allclose(
        predicted.loc[evaluated.index].to_numpy(), evaluated[probabilities].to_numpy(), atol=1e-6
    )
    arguments = ("--data", str(settings.data_dir), "--end", "2017-04-30", "--last", "3", "--json")
    said = ktrdr("models", "predict", str(path), *arguments, variables={})
    assert said.status == 0, said.stderr
    assert [row["timestamp"] for row in said.json] == [time.isoformat() for time in predicted.index[-3:]]


def test_a_model_says_which_context_it_needs(
    settings: Settings, blobs: DirectoryBlobStore, tmp_path: Path, eurusd: pd.DataFrame
) -> None:
    model = execute(prepare(WISH, settings, blobs), blobs, tmp_path)
    context = model.read_context(settings.data_dir)
    with pytest.raises(DataError, match=f"The model needs context {SPREAD}, .*, GOOGL; given: none"):
        model.predict(eurusd)
    with pytest.raises(DataError, match="given: GOOGL"):
        model.predict(eurusd, {"GOOGL": context["GOOGL"]})
    wrong = context | {"GOOGL": context["GOOGL"].iloc[::-1]}
    with pytest.raises(DataError, match=r"(?s)the context GOOGL has .*times that are not later"):
        model.predict(eurusd, wrong)


def test_several_symbols_see_the_same_context(tmp_path: Path) -> None:
    settings, wish = on_own_files(tmp_path)
    (settings.data_dir / "OTHER_1h.csv").symlink_to(REPOSITORY / "data" / "EURUSD_1h.csv")
    rows = [f"2017-{month:02}-01,{month % 5},2017-{month:02}-09" for month in range(1, 6)]
    write(settings.data_dir / "fred" / "R.csv", "date,value,published", *rows)
    symbols = {"mode": "multi_symbol", "list": ["EURUSD", "OTHER"]}
    blobs = DirectoryBlobStore(settings.blobs_dir)
    wish = replace(wish, overrides={**wish.overrides, "training_data.symbols": symbols})
    prepared = prepare(wish, settings, blobs)
    assert [(dataset.kind.value, dataset.symbol) for dataset in prepared.datasets] == [
        ("bars", "EURUSD"),
        ("bars", "OTHER"),
        ("context", "fred_R"),
    ]
    model = execute(prepared, blobs, tmp_path)
    assert model.metadata.training_symbols == ("EURUSD", "OTHER")
    assert set(model.context) == {"fred_R"}


def test_a_symbol_may_be_its_own_context_and_is_seen_bar_by_bar_as_its_bars_are(tmp_path: Path) -> None:
    settings, wish = on_own_files(tmp_path)
    mean = {"type": "sma", "period": 2}
    raw = {"timeframes": "all", "normalization": "minmax"}
    changes = {
        "context_data": [{"provider": "ib", "symbol": "EURUSD"}],
        "indicators": {"mean": mean, "other": {**mean, "data_source": "EURUSD"}},
        "nn_inputs": [{"raw_indicator": "mean", **raw}, {"raw_indicator": "other", **raw}],
    }
    blobs = DirectoryBlobStore(settings.blobs_dir)
    prepared = prepare(replace(wish, overrides={**wish.overrides, **changes}), settings, blobs)
    assert {dataset.name for dataset in prepared.datasets} == {"EURUSD 1h", "context EURUSD"}
    scalings = execute(prepared, blobs, tmp_path).metadata.normalization_params
    assert scalings["1h_mean_raw"] == scalings["1h_other_raw"]
