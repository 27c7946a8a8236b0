"""Whole trainings on real bars."""

import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import structlog
import torch
from safetensors.torch import load as load_tensors

from ktrdr.clock import SystemClock
from ktrdr.errors import DataError, OutOfMemoryError, StrategyError, TrainingCancelledError, TrainingError
from ktrdr.models.bundle import BUNDLE_FILES, digests, unpack
from ktrdr.models.metadata import ModelMetadata
from ktrdr.training.cancellation import ManualCancellation
from ktrdr.training.executor import TrainingExecutor
from ktrdr.training.job import TrainedModel, TrainingJob
from ktrdr.training.memory import out_of_memory_as_error
from ktrdr.training.progress import Observer, SilentObserver, Stage
from tests.unit.training_cases import MOMENTUM, QUICK, TWO_TIMEFRAMES, Recorder, dataset, job, with_bars

ROWS = 1200

REGRESSION: dict[str, Any] = {
    "decisions.output_format": "regression",
    "decisions.cost_model": {"round_trip_cost": 0.0001, "min_edge_multiplier": 1.0},
    "training.loss": "huber",
    "training.labels": {"source": "forward_return", "horizon": 6},
}


def execute(of: TrainingJob, observer: Observer | None = None, cancellation: Any = None) -> TrainedModel:
    return TrainingExecutor().run(of, observer or SilentObserver(), cancellation or ManualCancellation())


def metadata(model: TrainedModel) -> ModelMetadata:
    return ModelMetadata.model_validate_json(unpack(model.bundle)["metadata.json"])


def evaluation(model: TrainedModel) -> pd.DataFrame:
    table = pq.read_table(pa.BufferReader(unpack(model.bundle)["evaluation.parquet"]))
    frame: pd.DataFrame = table.to_pandas()
    return frame.set_index("timestamp")


@pytest.fixture(scope="module")
def bars(eurusd: pd.DataFrame) -> pd.DataFrame:
    return eurusd.iloc[:ROWS]


@pytest.fixture(scope="module")
def trained(bars: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> TrainedModel:
    return execute(job(bars, tmp_path_factory.mktemp("snapshots")))


# --- what is made ----------------------------------------------------------------------------------


def test_the_manifest_is_true_of_the_bundle(trained: TrainedModel) -> None:
    manifest, files = trained.manifest, unpack(trained.bundle)
    assert tuple(files) == BUNDLE_FILES
    assert manifest.files == digests(files)
    assert manifest.bundle_sha256 == hashlib.sha256(trained.bundle).hexdigest()
    assert manifest.bundle_size == len(trained.bundle)
    assert manifest.weights_sha256 == hashlib.sha256(files["model.safetensors"]).hexdigest()
    assert manifest.strategy_sha256 == hashlib.sha256(MOMENTUM.encode()).hexdigest()
    assert files["strategy.yaml"] == MOMENTUM.encode()
    assert manifest.parameters == sum(t.numel() for t in load_tensors(files["model.safetensors"]).values())
    assert manifest.parameters == 12 * 16 + 16 + 16 * 8 + 8 + 8 * 3 + 3
    assert manifest.classes == ("BUY", "HOLD", "SELL")
    assert manifest.epochs_trained == 3
    assert 1 <= manifest.best_epoch <= 3


def test_every_stage_is_timed_and_the_memory_measured(trained: TrainedModel) -> None:
    assert [timing.stage for timing in trained.manifest.timings] == [stage.title for stage in Stage]
    assert all(timing.seconds > 0 for timing in trained.manifest.timings)
    assert 50 << 20 < trained.manifest.peak_memory_bytes < 4 << 30


def test_the_metadata_says_what_was_trained_on_what(trained: TrainedModel, bars: pd.DataFrame) -> None:
    found = metadata(trained)
    assert found.resolved_features == trained.manifest.features
    assert tuple(feature.feature_id for feature in found.features) == found.resolved_features
    assert found.features[1].membership_type == "triangular"
    assert found.features[1].membership_parameters == (35.0, 50.0, 65.0)
    assert found.label_source == "triple_barrier"
    assert found.label_parameters["max_holding_period"] == 24
    assert found.overrides == QUICK
    assert found.effective_strategy["training"]["epochs"] == 3  # type: ignore[index,call-overload]  # JSON
    assert len(found.history) == 3
    assert found.training_metrics["val_loss"] == min(record.val_loss for record in found.history)
    assert found.history[found.best_epoch - 1].val_loss == found.training_metrics["val_loss"]
    assert found.datasets[0].rows == ROWS
    assert found.warmup_rows_dropped == 33
    assert found.versions.torch == torch.__version__
    split = found.split
    assert (split.train.rows, split.validation.rows, split.test.rows) == (
        trained.manifest.train_rows,
        trained.manifest.validation_rows,
        trained.manifest.test_rows,
    )
    assert split.purged_rows > 0
    for part, record in (("train", split.train), ("validation", split.validation), ("test", split.test)):
        assert sum(found.class_counts[part].values()) == record.rows
    assert bars.index[0] < split.train.start < split.train.end < split.validation.start
    assert split.validation.end < split.test.start < split.test.end <= bars.index[-1 - 24]


def test_the_test_metrics_follow_from_the_evaluation_table(trained: TrainedModel) -> None:
    table, found = evaluation(trained), metadata(trained)
    assert table.index.is_monotonic_increasing
    assert list(table.columns) == ["part", "close", "label", "prediction", "p_BUY", "p_HOLD", "p_SELL"]
    probabilities = table[["p_BUY", "p_HOLD", "p_SELL"]].to_numpy()
    assert probabilities.sum(axis=1) == pytest.approx(1, abs=1e-6)
    assert (np.array(found.classes)[probabilities.argmax(axis=1)] == table["prediction"]).all()
    test = table[table["part"] == "test"]
    metrics = trained.manifest.metrics
    assert metrics["accuracy"] == pytest.approx((test["label"] == test["prediction"]).mean())
    own = np.log([row[f"p_{row['label']}"] for _, row in test.iterrows()])
    assert metrics["log_loss"] == pytest.approx(-own.mean())
    majority = table.loc[table["part"] == "train", "label"].value_counts().idxmax()
    assert metrics["baseline_majority_class_accuracy"] == pytest.approx((test["label"] == majority).mean())
    assert metrics["baseline_majority_class_balanced_accuracy"] == pytest.approx(1 / 3)
    counts = test.groupby(["label", "prediction"]).size()
    for i, actual in enumerate(found.classes):
        for k, predicted in enumerate(found.classes):
            assert found.confusion[i][k] == counts.get((actual, predicted), 0)


def test_the_baseline_of_the_last_return_follows_the_last_bar(
    trained: TrainedModel, bars: pd.DataFrame
) -> None:
    table = evaluation(trained)
    test = table[table["part"] == "test"]
    change = bars["close"].diff().reindex(test.index)
    guess = np.where(change > 0, "BUY", np.where(change < 0, "SELL", "HOLD"))
    accuracy = (guess == test["label"]).mean()
    assert trained.manifest.metrics["baseline_last_return_sign_accuracy"] == pytest.approx(accuracy)


def test_rows_are_those_of_their_own_bars(trained: TrainedModel, bars: pd.DataFrame) -> None:
    table = evaluation(trained)
    assert (table["close"] == bars["close"].reindex(table.index)).all()
    assert table["part"].value_counts().to_dict() == {
        part: getattr(metadata(trained).split, part).rows for part in ("train", "validation", "test")
    }


def test_a_regression_is_trained_and_judged(bars: pd.DataFrame, tmp_path: Path) -> None:
    model = execute(job(bars, tmp_path, overrides=REGRESSION))
    found, table = metadata(model), evaluation(model)
    assert found.output_type == "regression"
    assert found.classes == ()
    assert found.class_weights == {}
    assert list(table.columns) == ["part", "close", "label", "prediction"]
    test = table[table["part"] == "test"]
    errors = test["prediction"].astype(float) - test["label"].astype(float)
    metrics = model.manifest.metrics
    assert metrics["mse"] == pytest.approx((errors**2).mean())
    small = np.minimum(errors.abs(), 0.01)
    assert metrics["huber"] == pytest.approx((small * (errors.abs() - small / 2)).mean())
    train_mean = table.loc[table["part"] == "train", "label"].astype(float).mean()
    expected = ((test["label"].astype(float) - train_mean) ** 2).mean()
    assert metrics["baseline_training_mean_mse"] == pytest.approx(expected)
    forward = bars["close"].shift(-6) / bars["close"] - 1
    assert np.abs(table["label"] - forward.reindex(table.index)).max() < 1e-7


def test_two_timeframes_are_trained_together(eurusd: pd.DataFrame, tmp_path: Path) -> None:
    strategy = job(eurusd.iloc[:2500], tmp_path, TWO_TIMEFRAMES, coarser="4h")
    model = execute(replace(strategy, strategy_name="eurusd_two_timeframes"))
    assert {feature.timeframe for feature in metadata(model).features} == {"1h", "4h"}
    assert model.manifest.strategy == "eurusd_two_timeframes"
    assert model.manifest.timeframe == "1h"


# --- reproducible ----------------------------------------------------------------------------------


def test_the_same_job_gives_the_same_bytes_whatever_ran_before(
    trained: TrainedModel, bars: pd.DataFrame, tmp_path: Path
) -> None:
    torch.manual_seed(123)
    torch.rand(1000)
    np.random.default_rng().random(10)
    before = torch.get_rng_state()
    again = execute(replace(job(bars, tmp_path), operation_id="op-other", attempt=2))
    assert again.bundle == trained.bundle
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.get_deterministic_debug_mode() == 0


def test_another_seed_gives_other_weights(trained: TrainedModel, bars: pd.DataFrame, tmp_path: Path) -> None:
    other = execute(job(bars, tmp_path, seed=8))
    assert other.manifest.weights_sha256 != trained.manifest.weights_sha256


_IN_A_PROCESS = """
import sys
import pandas as pd
from pathlib import Path
from tests.unit.training_cases import REPOSITORY, job
from ktrdr.training.progress import SilentObserver
from ktrdr.training.cancellation import ManualCancellation
from ktrdr.training.executor import TrainingExecutor
bars = pd.read_csv(REPOSITORY / "data" / "EURUSD_1h.csv", index_col="timestamp", parse_dates=True)
job = job(bars.iloc[:1200], Path(sys.argv[1]))
model = TrainingExecutor().run(job, SilentObserver(), ManualCancellation())
print("sha256", model.manifest.bundle_sha256)
"""


def test_another_process_gives_the_same_bytes(trained: TrainedModel, tmp_path: Path) -> None:
    other_hashes = "2" if os.environ.get("PYTHONHASHSEED") == "1" else "1"
    done = subprocess.run(
        [sys.executable, "-c", _IN_A_PROCESS, str(tmp_path)],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[2],
        env={"PYTHONHASHSEED": other_hashes, "PATH": ""},
    )
    assert done.stdout.splitlines()[-1] == f"sha256 {trained.manifest.bundle_sha256}"


# --- nothing from the future -----------------------------------------------------------------------


def shaken(bars: pd.DataFrame, since: pd.Timestamp) -> pd.DataFrame:
    """The same bars up to a time, and a different market from then on."""
    changed = bars.copy()
    later = changed.index >= since
    steps = np.random.default_rng(5).normal(0, 0.003, later.sum())
    changed.loc[later] *= np.exp(np.cumsum(steps))[:, None]
    return changed


def test_what_comes_after_the_validation_part_changes_no_weight(
    trained: TrainedModel, bars: pd.DataFrame, tmp_path: Path
) -> None:
    start = pd.Timestamp(metadata(trained).split.test.start)
    other = execute(with_bars(job(bars, tmp_path), shaken(bars, start), tmp_path))
    assert metadata(other).split == metadata(trained).split
    assert other.manifest.weights_sha256 == trained.manifest.weights_sha256
    assert metadata(other).history == metadata(trained).history
    assert other.manifest.metrics != trained.manifest.metrics


def test_what_comes_after_the_training_part_is_not_trained_on(bars: pd.DataFrame, tmp_path: Path) -> None:
    one_epoch = {"training.epochs": 1}  # with more, the validation part decides which epoch is kept
    first = execute(job(bars, tmp_path, overrides=one_epoch))
    start = pd.Timestamp(metadata(first).split.validation.start)
    other = execute(with_bars(job(bars, tmp_path, overrides=one_epoch), shaken(bars, start), tmp_path))
    assert other.manifest.weights_sha256 == first.manifest.weights_sha256
    assert metadata(other).history[0].val_loss != metadata(first).history[0].val_loss


def test_normalization_is_fitted_on_the_training_part(bars: pd.DataFrame, tmp_path: Path) -> None:
    raw: dict[str, Any] = {
        "nn_inputs": [
            {"raw_indicator": "rsi_14", "timeframes": "all", "normalization": "zscore"},
            {"raw_indicator": "roc_24", "timeframes": "all", "normalization": "minmax"},
        ],
        "training.epochs": 1,
    }
    first = execute(job(bars, tmp_path, overrides=raw))
    found = metadata(first)
    assert found.normalization_params["1h_roc_24_raw"].method == "minmax"
    change = bars["close"].pct_change(24) * 100
    in_training = change.reindex(evaluation(first).query("part == 'train'").index)
    assert found.normalization_params["1h_roc_24_raw"].offset == pytest.approx(in_training.min(), rel=1e-5)
    start = pd.Timestamp(found.split.validation.start)
    other = execute(with_bars(job(bars, tmp_path, overrides=raw), shaken(bars, start), tmp_path))
    assert metadata(other).normalization_params == found.normalization_params


# --- what is told ----------------------------------------------------------------------------------


def test_progress_never_falls_and_ends_at_one(bars: pd.DataFrame, tmp_path: Path) -> None:
    recorder = Recorder()
    execute(job(bars, tmp_path), recorder)
    fractions = [progress.fraction for progress in recorder.seen]
    assert fractions == sorted(fractions)
    assert fractions[0] == 0
    assert fractions[-1] == 1
    assert list(dict.fromkeys(progress.stage for progress in recorder.seen)) == list(Stage)
    epochs = [progress for progress in recorder.seen if progress.epoch and progress.stage is Stage.TRAIN]
    assert {progress.epoch for progress in epochs} == {1, 2, 3}
    assert set(epochs[-1].metrics) == {
        "train_loss",
        "val_loss",
        "train_accuracy",
        "val_accuracy",
        "learning_rate",
    }
    assert epochs[0].eta_s is not None
    assert epochs[0].eta_s > 0
    assert epochs[-1].eta_s == 0
    assert recorder.seen[0].eta_s is None


class SteppingClock(SystemClock):
    """Goes on by a millisecond each time it is asked."""

    def __init__(self) -> None:
        self.time = 0.0

    def monotonic(self) -> float:
        self.time += 0.001
        return self.time


def test_progress_within_an_epoch_comes_every_100_ms(bars: pd.DataFrame, tmp_path: Path) -> None:
    recorder = Recorder()
    one_epoch = job(bars, tmp_path, overrides={"training.epochs": 1, "training.batch_size": 1})
    TrainingExecutor(SteppingClock()).run(one_epoch, recorder, ManualCancellation())
    within = [progress for progress in recorder.seen if progress.batch]
    batches = within[0].batches
    assert batches > 700
    # Each batch asks the clock once, and each report twice.
    assert len(within) == pytest.approx(batches / 100, abs=2)
    assert [progress.batch for progress in within] == sorted(progress.batch for progress in within)


def test_each_stage_is_logged_with_its_number(bars: pd.DataFrame, tmp_path: Path) -> None:
    with structlog.testing.capture_logs() as logs:
        execute(job(bars, tmp_path))
    assert [entry["event"] for entry in logs if entry["log_level"] == "info"] == [
        "[1/8] Loading data",
        "[2/8] Computing indicators",
        "[3/8] Computing fuzzy memberships",
        "[4/8] Labelling bars",
        "[5/8] Splitting train, validation and test",
        "[6/8] Training",
        "[7/8] Evaluating on the test part",
        "[8/8] Packaging the model",
    ]
    details = {entry["stage"]: entry for entry in logs if entry["event"] == "stage done"}
    assert details["Computing fuzzy memberships"]["columns"] == 12
    assert all("seconds" in entry for entry in details.values())


# --- stopping --------------------------------------------------------------------------------------


class CancelledAtCheck:
    """Says stop when it is asked for the n-th time."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.asked = 0

    @property
    def cancelled(self) -> bool:
        self.asked += 1
        return self.asked >= self.number


def test_a_training_stops_wherever_it_is_cancelled(bars: pd.DataFrame, tmp_path: Path) -> None:
    counting = CancelledAtCheck(sys.maxsize)
    of = job(bars, tmp_path)
    execute(of, cancellation=counting)
    assert counting.asked > 60
    stages = set()
    for number in [*range(1, 45), counting.asked // 2, counting.asked - 1, counting.asked]:
        recorder = Recorder()
        with pytest.raises(TrainingCancelledError) as caught:
            execute(of, recorder, CancelledAtCheck(number))
        if recorder.seen:
            stages.add(recorder.seen[-1].stage)
            assert caught.value.epoch == recorder.seen[-1].epoch
    assert stages >= {Stage.LOAD, Stage.INDICATORS, Stage.LABELS, Stage.TRAIN, Stage.EVALUATE}


class WorkBetweenQuestions:
    """Measures how long this thread computed before each question."""

    def __init__(self) -> None:
        self.worked_s: list[float] = []
        self.last = time.thread_time()

    @property
    def cancelled(self) -> bool:
        now = time.thread_time()
        self.worked_s.append(now - self.last)
        self.last = now
        return False


def test_no_tenth_of_the_work_is_done_without_asking_the_token(eurusd: pd.DataFrame, tmp_path: Path) -> None:
    of = job(eurusd, tmp_path)
    tokens = [WorkBetweenQuestions() for _ in range(4)]
    for token in tokens:
        execute(of, cancellation=token)
    # Each run asks at the same places; what delays one of them once is not the work.
    worked_s = np.min([token.worked_s for token in tokens], axis=0)
    assert worked_s.max() < worked_s.sum() / 10


# --- bad input -------------------------------------------------------------------------------------


def refused(of: TrainingJob, error: type[Exception], match: str) -> Exception:
    with pytest.raises(error, match=match) as caught:
        execute(of)
    return caught.value


def test_a_wrong_strategy_is_refused(bars: pd.DataFrame, tmp_path: Path) -> None:
    wrong = MOMENTUM.replace("type: rsi", "type: rssi")
    refused(job(bars, tmp_path, wrong), StrategyError, "(?s)eurusd_momentum.yaml:.*rssi.*lacks a plug-in")


def test_data_of_another_symbol_is_refused(bars: pd.DataFrame, tmp_path: Path) -> None:
    other = replace(job(bars, tmp_path), datasets=(dataset(bars, tmp_path, symbol="GBPUSD"),))
    refused(other, DataError, "needs one dataset of EURUSD 1h; given: GBPUSD 1h")


def test_missing_and_double_data_is_refused(bars: pd.DataFrame, tmp_path: Path) -> None:
    of = job(bars, tmp_path)
    refused(replace(of, datasets=()), DataError, "given: none")
    refused(replace(of, datasets=of.datasets * 2), DataError, "one dataset of EURUSD 1h")
    refused(job(bars, tmp_path, TWO_TIMEFRAMES), DataError, "one dataset of EURUSD 4h")


def test_a_snapshot_that_is_none_is_refused(bars: pd.DataFrame, tmp_path: Path) -> None:
    of = job(bars, tmp_path)
    of.datasets[0].path.write_bytes(b"timestamp,open\n")
    refused(of, DataError, "not a snapshot")
    of.datasets[0].path.unlink()
    refused(of, DataError, "cannot be read")


@pytest.mark.parametrize(("rows", "match"), [(20, "indicator"), (60, "bars|rows"), (110, "rows")])
def test_too_few_bars_are_refused_with_the_reason(
    bars: pd.DataFrame, tmp_path: Path, rows: int, match: str
) -> None:
    error = refused(job(bars.iloc[:rows], tmp_path), DataError, f"(?i){match}")
    assert isinstance(error, DataError)
    assert error.fix


def test_a_label_that_reaches_over_a_part_leaves_too_few_rows(bars: pd.DataFrame, tmp_path: Path) -> None:
    far: dict[str, Any] = {
        "training.labels.pt_multiplier": 1e3,
        "training.labels.sl_multiplier": 1e3,
        "training.labels.max_holding_period": 400,
    }
    refused(job(bars, tmp_path, overrides=far), DataError, "each part needs 10")


def test_a_training_part_with_one_label_only_is_refused(bars: pd.DataFrame, tmp_path: Path) -> None:
    rising = bars.copy()
    growth = np.exp(0.01 * np.arange(len(bars)))
    rising[["open", "high", "low", "close"]] = np.outer(growth, [1.0, 1.001, 0.999, 1.0])
    error = refused(job(rising, tmp_path), DataError, "All .* rows of the training part have the label BUY")
    assert "training.labels" in str(error)


def test_a_class_that_only_the_test_part_has_is_no_problem(bars: pd.DataFrame, tmp_path: Path) -> None:
    # It rises (BUY) or stands still (HOLD) by turns, and falls only at the end.
    steps = np.where(np.arange(len(bars)) // 50 % 2, 0.0, 0.003)
    steps[1100:] = -0.02
    calm = bars.copy()
    prices = np.outer(np.exp(np.cumsum(steps)), [1.0, 1.0005, 0.9995, 1.0])
    calm[["open", "high", "low", "close"]] = prices
    labels: dict[str, Any] = {
        "training.labels.pt_multiplier": 2.0,
        "training.labels.sl_multiplier": 9.0,
        "training.labels.max_holding_period": 5,
    }
    model = execute(job(calm, tmp_path, overrides=labels))
    found = metadata(model)
    assert found.class_counts["train"]["SELL"] == 0
    assert found.class_counts["test"]["SELL"] > 0
    assert found.class_weights["SELL"] == 0
    assert len(found.class_weights) == 3
    assert all(np.isfinite(value) for value in model.manifest.metrics.values())


def test_a_device_that_is_not_there_is_refused(bars: pd.DataFrame, tmp_path: Path) -> None:
    refused(replace(job(bars, tmp_path), device="cuda:77"), TrainingError, "not available")


@pytest.mark.parametrize(
    "exhaust", [lambda: torch.empty(1 << 55), lambda: np.empty(1 << 55)], ids=["torch", "numpy"]
)
def test_running_out_of_memory_is_told_as_such(exhaust: Callable[[], object]) -> None:
    with pytest.raises(OutOfMemoryError) as caught, out_of_memory_as_error():
        exhaust()
    assert isinstance(caught.value, MemoryError)
    assert caught.value.fix


def test_other_runtime_errors_stay_what_they_are() -> None:
    with pytest.raises(RuntimeError, match="mat1"), out_of_memory_as_error():
        torch.mm(torch.ones(2, 3), torch.ones(2, 3))


def test_the_metadata_is_sorted_json_without_a_clock(trained: TrainedModel) -> None:
    text = unpack(trained.bundle)["metadata.json"].decode()
    assert text == json.dumps(json.loads(text), indent=2, sort_keys=True) + "\n"
    assert str(pd.Timestamp.now().year) not in text.replace(torch.__version__, "")
