"""One network, the bars of several symbols: each symbol's features with its own labels, split at one time."""

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ktrdr.errors import DataError
from ktrdr.models.bundle import unpack
from ktrdr.models.loaded import load_model
from ktrdr.models.metadata import ModelMetadata
from ktrdr.models.report import ReportContext, render_report
from ktrdr.models.report.formatting import percent
from ktrdr.strategy import parse_strategy
from ktrdr.training.cancellation import ManualCancellation
from ktrdr.training.executor import TrainingExecutor
from ktrdr.training.job import TrainedModel, TrainingJob
from ktrdr.training.progress import SilentObserver
from tests.unit.training_cases import MOMENTUM, dataset, job

ROWS = 900
SYMBOLS = ("EURUSD", "GBPUSD")
OF_BOTH: dict[str, Any] = {"training_data.symbols": {"mode": "multi_symbol", "list": list(SYMBOLS)}}
RETURNS: dict[str, Any] = {
    "decisions.output_format": "regression",
    "decisions.cost_model": {"round_trip_cost": 0.0001, "min_edge_multiplier": 1.0},
    "training.loss": "huber",
    "training.labels": {"source": "forward_return", "horizon": 6},
}


def execute(of: TrainingJob) -> TrainedModel:
    return TrainingExecutor().run(of, SilentObserver(), ManualCancellation())


def metadata(model: TrainedModel) -> ModelMetadata:
    return ModelMetadata.model_validate_json(unpack(model.bundle)["metadata.json"])


def evaluation(model: TrainedModel) -> pd.DataFrame:
    table = pq.read_table(pa.BufferReader(unpack(model.bundle)["evaluation.parquet"]))
    frame: pd.DataFrame = table.to_pandas()
    return frame.astype({"symbol": str, "part": str}) if "symbol" in frame else frame


def job_on(
    bars: Mapping[str, pd.DataFrame], directory: Path, overrides: Mapping[str, Any] | None = None
) -> TrainingJob:
    """Return a job on hourly bars by symbol."""
    first = next(iter(bars.values()))
    given = tuple(dataset(table, directory, symbol) for symbol, table in bars.items())
    return replace(job(first, directory, overrides={**OF_BOTH, **(overrides or {})}), datasets=given)


@pytest.fixture(scope="module")
def bars(eurusd: pd.DataFrame, random_bars: Callable[..., pd.DataFrame]) -> dict[str, pd.DataFrame]:
    """The second begins later and has its own calendar: bars on weekends, and none on Wednesdays."""
    other = random_bars(ROWS, seed=3, step=0.001)
    first = eurusd.iloc[:ROWS]
    other.index = pd.date_range(first.index[60], periods=ROWS, freq="h", name="timestamp", unit="us")
    return {"EURUSD": first, "GBPUSD": other[other.index.day_of_week != 2]}


@pytest.fixture(scope="module")
def trained(bars: dict[str, pd.DataFrame], tmp_path_factory: pytest.TempPathFactory) -> TrainedModel:
    return execute(job_on(bars, tmp_path_factory.mktemp("snapshots"), RETURNS))


def test_every_row_has_the_label_of_its_own_symbol(
    trained: TrainedModel, bars: dict[str, pd.DataFrame]
) -> None:
    rows = evaluation(trained)
    assert set(rows["symbol"]) == set(SYMBOLS)
    for symbol, table in bars.items():
        own = rows[rows["symbol"] == symbol].set_index("timestamp")
        closes = table["close"]
        np.testing.assert_array_equal(own["close"], closes[own.index])
        future = (closes.shift(-6) / closes - 1)[own.index]
        np.testing.assert_allclose(own["label"], future, rtol=1e-5, atol=1e-9)


def test_the_parts_begin_at_one_time_for_all_symbols(trained: TrainedModel) -> None:
    rows = evaluation(trained)
    edges = rows.groupby("part")["timestamp"].agg(["min", "max"])
    assert edges.loc["train", "max"] < edges.loc["validation", "min"]
    assert edges.loc["validation", "max"] < edges.loc["test", "min"]
    assert set(rows[rows["part"] == "test"]["symbol"]) == set(SYMBOLS)


def test_the_model_says_what_it_was_trained_on(trained: TrainedModel) -> None:
    found = metadata(trained)
    assert found.training_symbols == SYMBOLS
    assert found.symbol == trained.manifest.symbol == "EURUSD+GBPUSD"
    assert [each.symbol for each in found.datasets] == list(SYMBOLS)


def test_each_symbol_is_evaluated_as_the_loaded_model_predicts_it(
    trained: TrainedModel, bars: dict[str, pd.DataFrame], tmp_path: Path
) -> None:
    for name, content in unpack(trained.bundle).items():
        (tmp_path / name).write_bytes(content)
    model = load_model(tmp_path)
    rows = evaluation(trained)
    for symbol, table in bars.items():
        own = rows[rows["symbol"] == symbol].set_index("timestamp")
        again = model.predict(table)
        np.testing.assert_array_equal(again.loc[own.index, "value"], own["prediction"])


def test_what_another_symbol_does_changes_no_label_of_this_one(
    bars: dict[str, pd.DataFrame], tmp_path: Path, random_bars: Callable[..., pd.DataFrame]
) -> None:
    changed = random_bars(len(bars["GBPUSD"]), seed=9, step=0.001).set_index(bars["GBPUSD"].index)
    both = [
        evaluation(execute(job_on(given, tmp_path, {**RETURNS, "training.epochs": 1})))
        for given in (bars, {**bars, "GBPUSD": changed})
    ]
    labels = [table[table["symbol"] == "EURUSD"][["timestamp", "part", "close", "label"]] for table in both]
    pd.testing.assert_frame_equal(*labels)


def test_the_report_has_a_chart_and_a_score_of_each_symbol(trained: TrainedModel) -> None:
    context = ReportContext("momentum/EURUSD+GBPUSD_1h_v1", 1, "op-1", datetime(2026, 1, 1, tzinfo=UTC))
    page = render_report(unpack(trained.bundle), context).decode()
    rows = evaluation(trained)
    test = rows[rows["part"] == "test"]
    for number, symbol in enumerate(SYMBOLS, start=1):
        assert f'id="chart-timeline-{number}"' in page
        assert f"{symbol}: returns and predictions over time" in page
        own = test[test["symbol"] == symbol]
        share = float((np.sign(own["label"]) == np.sign(own["prediction"])).mean())
        cells = f'<th scope="row">{symbol}</th><td class="num">{percent(share)}</td>'
        assert cells + f'<td class="num">{len(own)}</td>' in page


def test_the_order_of_the_datasets_does_not_matter(bars: dict[str, pd.DataFrame], tmp_path: Path) -> None:
    one = job_on(bars, tmp_path)
    other = replace(one, datasets=one.datasets[::-1])
    first, second = (
        json.loads(unpack(execute(each).bundle)["metadata.json"])["weights_sha256"] for each in (one, other)
    )
    assert first == second


def test_a_symbol_without_bars_is_named(bars: dict[str, pd.DataFrame], tmp_path: Path) -> None:
    with pytest.raises(DataError, match="one dataset of GBPUSD 1h; given: EURUSD 1h"):
        execute(job_on({"EURUSD": bars["EURUSD"]}, tmp_path))


def test_a_symbol_with_too_few_bars_for_a_label_is_named(
    bars: dict[str, pd.DataFrame], tmp_path: Path
) -> None:
    few = {**bars, "GBPUSD": bars["GBPUSD"].iloc[:38]}
    with pytest.raises(DataError, match="No bar of GBPUSD has both"):
        execute(job_on(few, tmp_path, RETURNS))


@pytest.mark.parametrize(
    ("symbols", "name"),
    [
        (["EURUSD", "GBPUSD", "USDJPY"], "EURUSD+GBPUSD+USDJPY"),
        ([f"SYMBOL{number}" for number in range(12)], "SYMBOL0+11"),
    ],
)
def test_several_symbols_have_one_name_that_fits_a_directory(symbols: list[str], name: str) -> None:
    overrides: dict[str, Any] = {"training_data.symbols": {"mode": "multi_symbol", "list": symbols}}
    parsed = parse_strategy(MOMENTUM, source="momentum.yaml", overrides=overrides)
    assert parsed.strategy.symbols == tuple(symbols)
    assert parsed.strategy.symbol == name


@pytest.mark.parametrize("of", [{}, {"training.labels": {"source": "regime"}}], ids=["indicators", "labels"])
def test_what_is_wrong_with_the_bars_of_one_symbol_is_said_with_its_name(
    bars: dict[str, pd.DataFrame], tmp_path: Path, of: dict[str, Any]
) -> None:
    rows = 100 if of else 20
    with pytest.raises(DataError, match=r"^GBPUSD: .* need"):
        execute(job_on({**bars, "GBPUSD": bars["GBPUSD"].iloc[:rows]}, tmp_path, of))
