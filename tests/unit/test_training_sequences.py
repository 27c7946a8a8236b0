"""Networks that are given windows: trained, evaluated and loaded on the same consecutive bars."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ktrdr.errors import DataError
from ktrdr.models.bundle import unpack
from ktrdr.models.loaded import LoadedModel, load_model
from ktrdr.models.metadata import ModelMetadata
from ktrdr.training.cancellation import ManualCancellation
from ktrdr.training.executor import TrainingExecutor
from ktrdr.training.job import TrainedModel
from ktrdr.training.progress import SilentObserver
from tests.unit.training_cases import job

WINDOW = 12
GRU: dict[str, Any] = {
    "model": {"type": "gru", "architecture": {"sequence_length": WINDOW, "hidden_size": 8, "num_layers": 2}},
    "training.epochs": 2,
    "training.batch_size": 64,
    "training.early_stopping": False,
    "training.labels": {"source": "triple_barrier", "max_holding_period": 12, "compute_weights": True},
}
WARMUP = 33
HOLE_AT, HOLE_BARS = 500, 200


def execute(bars: pd.DataFrame, directory: Path, overrides: dict[str, Any] | None = None) -> TrainedModel:
    of = replace(job(bars, directory), overrides={**GRU, **(overrides or {})})
    return TrainingExecutor().run(of, SilentObserver(), ManualCancellation())


def evaluation(model: TrainedModel) -> pd.DataFrame:
    table = pq.read_table(pa.BufferReader(unpack(model.bundle)["evaluation.parquet"]))
    frame: pd.DataFrame = table.to_pandas()
    return frame.set_index("timestamp")


@pytest.fixture(scope="module")
def bars(eurusd: pd.DataFrame) -> pd.DataFrame:
    """1,000 bars, with more than a week missing among them."""
    return pd.concat([eurusd.iloc[:HOLE_AT], eurusd.iloc[HOLE_AT + HOLE_BARS : 1000 + HOLE_BARS]])


@pytest.fixture(scope="module")
def trained(bars: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> TrainedModel:
    return execute(bars, tmp_path_factory.mktemp("snapshots"))


@pytest.fixture(scope="module")
def loaded(trained: TrainedModel, tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    directory = tmp_path_factory.mktemp("model")
    for name, content in unpack(trained.bundle).items():
        (directory / name).write_bytes(content)
    return load_model(directory)


def test_the_first_bars_and_those_after_a_hole_have_no_whole_window(
    loaded: LoadedModel, bars: pd.DataFrame
) -> None:
    assert loaded.metadata.sequence_length == WINDOW
    assert loaded.metadata.window_rows_dropped == 2 * (WINDOW - 1)
    predicted = loaded.predict(bars)
    expected = bars.index[WARMUP + WINDOW - 1 : HOLE_AT].append(bars.index[HOLE_AT + WINDOW - 1 :])
    assert predicted.index.equals(expected)


def test_the_loaded_model_answers_as_the_evaluation_says(
    trained: TrainedModel, loaded: LoadedModel, bars: pd.DataFrame
) -> None:
    rows = evaluation(trained)
    again = loaded.predict(bars).loc[rows.index]
    for name in ("BUY", "HOLD", "SELL"):
        np.testing.assert_array_equal(again[name], rows[f"p_{name}"])


def test_an_answer_rests_on_its_window_and_on_no_later_bar(loaded: LoadedModel, bars: pd.DataFrame) -> None:
    whole = loaded.predict(bars)
    pd.testing.assert_frame_equal(loaded.predict(bars.iloc[:400]), whole.loc[: bars.index[399]])


def test_an_answer_changes_with_the_oldest_bar_of_its_window(loaded: LoadedModel, bars: pd.DataFrame) -> None:
    changed = bars.copy()
    changed.iloc[300, :4] *= 1.01
    before, after = loaded.predict(bars), loaded.predict(changed)
    differs = (before != after).any(axis=1)
    assert not differs[: bars.index[299]].any()
    assert differs[bars.index[300]]
    assert differs[bars.index[300 + WINDOW - 1]]


def test_the_same_seed_gives_the_same_model(
    trained: TrainedModel, bars: pd.DataFrame, tmp_path: Path
) -> None:
    assert execute(bars, tmp_path).bundle == trained.bundle


def test_fewer_consecutive_bars_than_a_window_are_an_error_that_says_so(
    loaded: LoadedModel, bars: pd.DataFrame
) -> None:
    with pytest.raises(DataError, match=f"needs {WINDOW} consecutive bars"):
        loaded.predict(bars.iloc[: WARMUP + WINDOW - 1])


def test_a_window_that_no_bar_can_have_is_an_error_of_the_training(
    bars: pd.DataFrame, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match="the features of 900 consecutive bars"):
        execute(bars, tmp_path, {"model.architecture.sequence_length": 900})


def test_weights_decide_how_often_a_row_is_drawn_and_its_class_weighs_accordingly(
    trained: TrainedModel, bars: pd.DataFrame, tmp_path: Path
) -> None:
    alike = execute(bars, tmp_path, {"training.labels.compute_weights": False})
    both = [
        ModelMetadata.model_validate_json(unpack(each.bundle)["metadata.json"]) for each in (trained, alike)
    ]
    assert both[0].class_counts == both[1].class_counts
    assert both[0].class_weights != both[1].class_weights
    assert both[0].weights_sha256 != both[1].weights_sha256
