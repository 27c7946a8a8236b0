"""Bars at the edge of what numbers can do: a model of finite numbers, or an error that says why."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from safetensors.torch import load as load_tensors

from ktrdr.errors import DataError
from ktrdr.models.bundle import unpack
from ktrdr.training.cancellation import ManualCancellation
from ktrdr.training.executor import TrainingExecutor
from ktrdr.training.job import TrainedModel
from ktrdr.training.progress import SilentObserver
from tests.unit.training_cases import job

PRICES = ["open", "high", "low", "close"]
ROWS = 900

FUZZY: dict[str, Any] = {}
RAW: dict[str, Any] = {
    "nn_inputs": [
        {"raw_indicator": "macd.line", "timeframes": "all", "normalization": "zscore"},
        {"raw_indicator": "rsi_14", "timeframes": "all", "normalization": "minmax"},
        {"raw_indicator": "roc_24", "timeframes": "all"},
    ]
}
BARRIERS: dict[str, Any] = {"training.labels": {"source": "triple_barrier", "max_holding_period": 10}}
SWINGS: dict[str, Any] = {"training.labels": {"source": "zigzag", "zigzag_threshold": 0.01}}
RETURNS: dict[str, Any] = {
    "decisions.output_format": "regression",
    "decisions.cost_model": {"round_trip_cost": 0.0001, "min_edge_multiplier": 1.0},
    "training.loss": "huber",
    "training.labels": {"source": "forward_return", "horizon": 6},
}


def scaled(factor: float) -> Callable[[pd.DataFrame], pd.DataFrame]:
    return lambda bars: bars.assign(**{name: bars[name] * factor for name in PRICES})


def constant(bars: pd.DataFrame) -> pd.DataFrame:
    return bars.assign(**dict.fromkeys(PRICES, 1.1))


def without_volume(bars: pd.DataFrame) -> pd.DataFrame:
    return bars.assign(volume=0.0)


def still_for_a_while(bars: pd.DataFrame) -> pd.DataFrame:
    changed = bars.copy()
    changed.iloc[200:500, :4] = 1.05
    return changed


def rising(bars: pd.DataFrame) -> pd.DataFrame:
    price = 1.1 * np.exp(np.arange(len(bars)) * 1e-4)
    return bars.assign(open=price, close=price * 1.00005, high=price * 1.0002, low=price * 0.9999)


def collapsing(bars: pd.DataFrame) -> pd.DataFrame:
    """A price that loses six digits in one bar, in the test part."""
    changed = bars.copy()
    changed.iloc[-60:, :4] *= 1e-6
    return changed


def execute(bars: pd.DataFrame, directory: Path, overrides: dict[str, Any]) -> TrainedModel:
    one = job(bars, directory, overrides=overrides)
    return TrainingExecutor().run(one, SilentObserver(), ManualCancellation())


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("features", [FUZZY, RAW], ids=["fuzzy", "raw"])
@pytest.mark.parametrize("labels", [BARRIERS, SWINGS, RETURNS], ids=["barriers", "swings", "returns"])
@pytest.mark.parametrize(
    "change",
    [scaled(1e-8), scaled(1e8), without_volume, still_for_a_while, collapsing],
    ids=["tiny prices", "huge prices", "no volume", "still for a while", "collapsing"],
)
def test_odd_prices_make_a_model_of_finite_numbers(
    eurusd: pd.DataFrame,
    tmp_path: Path,
    change: Callable[[pd.DataFrame], pd.DataFrame],
    labels: dict[str, Any],
    features: dict[str, Any],
) -> None:
    files = unpack(execute(change(eurusd.iloc[:ROWS]), tmp_path, {**labels, **features}).bundle)
    assert all(bool(tensor.isfinite().all()) for tensor in load_tensors(files["model.safetensors"]).values())
    rows = pq.read_table(pa.BufferReader(files["evaluation.parquet"])).to_pandas()
    assert np.isfinite(rows.select_dtypes("number").to_numpy()).all()


@pytest.mark.parametrize("features", [FUZZY, RAW], ids=["fuzzy", "raw"])
@pytest.mark.parametrize(
    ("change", "labels", "told"),
    [
        (constant, BARRIERS, "volatility .* is 0 at every bar"),
        (constant, SWINGS, "label"),
        (rising, BARRIERS, "All .* rows of the training part have the label BUY"),
        (rising, SWINGS, "All .* rows of the training part have the label BUY"),
    ],
    ids=["constant, barriers", "constant, swings", "rising, barriers", "rising, swings"],
)
def test_prices_that_teach_nothing_are_refused_with_the_reason(
    eurusd: pd.DataFrame,
    tmp_path: Path,
    change: Callable[[pd.DataFrame], pd.DataFrame],
    labels: dict[str, Any],
    told: str,
    features: dict[str, Any],
) -> None:
    with pytest.raises(DataError, match=told):
        execute(change(eurusd.iloc[:ROWS]), tmp_path, {**labels, **features})


def test_a_class_of_a_handful_of_rows_has_a_weight_and_no_gradient_that_is_not_finite(
    eurusd: pd.DataFrame, tmp_path: Path
) -> None:
    rare = {"source": "triple_barrier", "pt_multiplier": 25.0, "sl_multiplier": 1.0, "max_holding_period": 10}
    files = unpack(execute(eurusd.iloc[:ROWS], tmp_path, {"training.labels": rare}).bundle)
    assert all(bool(tensor.isfinite().all()) for tensor in load_tensors(files["model.safetensors"]).values())
