"""Small models of the bundled EURUSD bars, with every file that a report is made from.

A softmax or linear regression on three features, by gradient descent in NumPy: real answers to real bars,
without the time that torch takes to import.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from hashlib import sha256
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from ktrdr.events.references import BlobRef, DatasetRef, StageTiming
from ktrdr.models.bundle import EVALUATION_FILE, METADATA_FILE, STRATEGY_FILE, WEIGHTS_FILE
from ktrdr.models.metadata import (
    EpochRecord,
    FeatureRecord,
    ModelMetadata,
    NormalizationRecord,
    SplitPart,
    SplitRecord,
    Versions,
)
from ktrdr.models.report import ReportContext
from ktrdr.training.metrics import (
    classification_metrics,
    confusion_matrix,
    log_loss,
    per_class_metrics,
    regression_metrics,
)

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Booleans = npt.NDArray[np.bool_]

HORIZON = 20
EPOCHS = 40
PATIENCE = 12
CLASSES = ("BUY", "HOLD", "SELL")
STRATEGY = """\
# Momentum on the euro.
name: eurusd_momentum
version: "3.0"
indicators:
  rsi_14: {type: rsi, period: 14}
  macd_12_26_9:
    type: macd
    fast_period: 12
"""
_EURUSD = Path(__file__).parents[2] / "data" / "EURUSD_1h.csv"


@dataclass(frozen=True)
class Case:
    """The input of a report."""

    files: Mapping[str, bytes]
    metadata: ModelMetadata
    context: ReportContext

    def changed(self, **fields: object) -> "Case":
        """Return the case with other metadata."""
        metadata = ModelMetadata.model_validate({**self.metadata.model_dump(), **fields})
        files = {**self.files, METADATA_FILE: metadata.model_dump_json().encode()}
        return Case(files, metadata, self.context)

    @property
    def evaluation(self) -> pa.Table:
        """The rows."""
        return pq.read_table(pa.BufferReader(self.files[EVALUATION_FILE]))

    def with_evaluation(self, table: pa.Table) -> "Case":
        """Return the case with other rows."""
        return Case({**self.files, EVALUATION_FILE: as_parquet(table)}, self.metadata, self.context)


def as_parquet(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    return bytes(sink.getvalue().to_pybytes())


@cache
def classified(classes: Sequence[str] = CLASSES, rows: int = 6_000) -> Case:
    """A classifier of where the price goes within 20 bars: up, not far, or down."""
    times, close = _bars(rows)
    ahead = close[HORIZON:] / close[:-HORIZON] - 1
    features = _features(close)[:-HORIZON]
    far = np.quantile(np.abs(ahead), 0.4)
    label = np.where(ahead > far, 0, np.where(ahead < -far, 2, 1))
    parts = _parts(len(label))
    trained = _softmax_regression(features, label, parts, len(classes))
    test = parts == 2
    confusion = confusion_matrix(label[test], trained.predicted[test], len(classes))
    counts = np.bincount(label[parts == 0], minlength=len(classes))
    signs = np.sign(np.diff(close, prepend=close[0])[:-HORIZON][test]).astype(np.int64)
    guesses = {"majority_class": np.full(test.sum(), counts.argmax()), "last_return_sign": 1 - signs}
    names = np.array(classes)
    table = pa.table(
        {
            **_bar_columns(times, parts, close),
            "label": names[label[parts >= 0]],
            "prediction": names[trained.predicted[parts >= 0]],
            **{
                f"p_{name}": trained.output[parts >= 0, i].astype(np.float32)
                for i, name in enumerate(classes)
            },
        }
    )
    return _case(
        table,
        _split(times, parts),
        trained,
        output_type="classification",
        label_source="triple_barrier",
        label_parameters={"max_holding_period": HORIZON, "pt_multiplier": 2.0},
        classes=tuple(classes),
        class_counts={
            name: dict(zip(classes, np.bincount(label[parts == i], minlength=3).tolist(), strict=True))
            for i, name in enumerate(("train", "validation", "test"))
        },
        class_weights=dict(zip(classes, (counts.sum() / 3 / counts).tolist(), strict=True)),
        test_metrics={
            **classification_metrics(confusion),
            "log_loss": log_loss(label[test], trained.output[test]),
        },
        baselines={
            name: classification_metrics(confusion_matrix(label[test], guess, 3))
            for name, guess in guesses.items()
        },
        per_class=per_class_metrics(confusion, classes),
        confusion=tuple(map(tuple, confusion.tolist())),
    )


@cache
def regressed(rows: int = 6_000) -> Case:
    """A regression of the return over the next 20 bars."""
    times, close = _bars(rows)
    ahead = close[HORIZON:] / close[:-HORIZON] - 1
    parts = _parts(len(ahead))
    trained = _linear_regression(_features(close)[:-HORIZON], ahead, parts)
    test = parts == 2
    last = np.diff(close, prepend=close[0])[:-HORIZON][test] / close[:-HORIZON][test]
    table = pa.table(
        {
            **_bar_columns(times, parts, close),
            "label": ahead[parts >= 0].astype(np.float32),
            "prediction": trained.predicted[parts >= 0].astype(np.float32),
        }
    )
    return _case(
        table,
        _split(times, parts),
        trained,
        output_type="regression",
        label_source="forward_return",
        label_parameters={"horizon": HORIZON},
        test_metrics=regression_metrics(ahead[test], trained.predicted[test]),
        baselines={
            "training_mean": regression_metrics(ahead[test], np.full(test.sum(), ahead[parts == 0].mean())),
            "last_return_sign": regression_metrics(ahead[test], last),
        },
    )


@dataclass(frozen=True)
class _Trained:
    output: Floats
    predicted: npt.NDArray[np.generic]
    history: tuple[EpochRecord, ...]
    best_epoch: int


def _softmax_regression(features: Floats, label: Integers, parts: Integers, classes: int) -> _Trained:
    wanted = np.eye(classes)[label]
    train, validation = parts == 0, parts == 1
    weights = best = np.zeros((features.shape[1], classes))
    history: list[EpochRecord] = []
    for epoch in range(1, EPOCHS + 1):
        probabilities = _softmax(features @ weights)
        losses = -np.log((probabilities * wanted).sum(axis=1))
        hits = probabilities.argmax(axis=1) == label
        if not history or losses[validation].mean() < min(record.val_loss for record in history):
            best = weights
        history.append(_epoch(epoch, losses, hits, train, validation))
        if epoch - min(history, key=lambda record: record.val_loss).epoch >= PATIENCE:
            break
        weights = weights - 0.3 * features[train].T @ (probabilities - wanted)[train] / train.sum()
    probabilities = _softmax(features @ best).astype(np.float32)
    best_epoch = min(history, key=lambda record: record.val_loss).epoch
    return _Trained(probabilities, probabilities.argmax(axis=1), tuple(history), best_epoch)


def _linear_regression(features: Floats, value: Floats, parts: Integers) -> _Trained:
    train, validation = parts == 0, parts == 1
    weights = best = np.full(features.shape[1], 0.001)
    history: list[EpochRecord] = []
    for epoch in range(1, EPOCHS + 1):
        error = features @ weights - value
        if not history or (error[validation] ** 2).mean() < min(record.val_loss for record in history):
            best = weights
        history.append(
            _epoch(epoch, error**2, np.sign(features @ weights) == np.sign(value), train, validation)
        )
        weights = weights - 0.05 * features[train].T @ error[train] / train.sum()
    predicted = features @ best
    best_epoch = min(history, key=lambda record: record.val_loss).epoch
    return _Trained(predicted, predicted, tuple(history), best_epoch)


def _softmax(scores: Floats) -> Floats:
    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def _epoch(epoch: int, losses: Floats, hits: Booleans, train: Booleans, validation: Booleans) -> EpochRecord:
    return EpochRecord(
        epoch=epoch,
        train_loss=losses[train].mean(),
        val_loss=losses[validation].mean(),
        train_accuracy=hits[train].mean(),
        val_accuracy=hits[validation].mean(),
        learning_rate=0.3 if epoch <= EPOCHS // 4 else 0.1,
    )


@cache
def _bars(rows: int) -> tuple[pa.ChunkedArray, Floats]:
    table = pa.csv.read_csv(_EURUSD)
    times = pc.cast(table["timestamp"], pa.timestamp("us", tz="UTC"))
    return times[:rows], table["close"].to_numpy()[:rows].astype(np.float64)


def _features(close: Floats) -> Floats:
    def momentum(bars: int) -> Floats:
        change = np.zeros(len(close))
        change[bars:] = close[bars:] / close[:-bars] - 1
        return np.asarray(change / change.std())

    return np.column_stack([np.ones(len(close)), momentum(5), momentum(20), momentum(60)])


def _parts(rows: int) -> Integers:
    """Return 0, 1, 2 for train, validation, test, and -1 where the label reaches into the next part."""
    parts = np.repeat(
        [0, 1, 2], [int(rows * 0.7), int(rows * 0.15), rows - int(rows * 0.7) - int(rows * 0.15)]
    )
    borders = np.flatnonzero(np.diff(parts)) + 1
    for border in borders:
        parts[max(0, border - HORIZON) : border] = -1
    return parts


def _bar_columns(times: pa.ChunkedArray, parts: Integers, close: Floats) -> dict[str, object]:
    used = np.flatnonzero(parts >= 0)
    return {
        "timestamp": times.take(pa.array(used)),
        "part": np.array(["train", "validation", "test"])[parts[used]],
        "close": close[used],
    }


def _split(times: pa.ChunkedArray, parts: Integers) -> SplitRecord:
    def part(number: int) -> SplitPart:
        rows = np.flatnonzero(parts == number)
        start, end = (times[int(row)].as_py() for row in rows[[0, -1]])
        return SplitPart(rows=len(rows), start=start, end=end)

    return SplitRecord(train=part(0), validation=part(1), test=part(2), purged_rows=int((parts < 0).sum()))


def _case(table: pa.Table, split: SplitRecord, trained: _Trained, **fields: object) -> Case:
    weights = b"weights of a test"
    metadata = ModelMetadata.model_validate(
        {
            "strategy_name": "eurusd_momentum",
            "strategy_version": "3.0",
            "strategy_sha256": sha256(STRATEGY.encode()).hexdigest(),
            "overrides": {"training.epochs": EPOCHS},
            "effective_strategy": {
                "indicators": {
                    "rsi_14": {"type": "rsi", "period": 14},
                    "macd_12_26_9": {"type": "macd", "fast_period": 12},
                }
            },
            "symbol": "EURUSD",
            "timeframe": "1h",
            "training_symbols": ("EURUSD",),
            "training_timeframes": ("1h",),
            "datasets": (_dataset(split),),
            "model_type": "mlp",
            "resolved_features": tuple(feature.feature_id for feature in _FEATURES),
            "features": _FEATURES,
            "normalization_params": {
                "1h_macd_12_26_9.line_raw": NormalizationRecord(method="zscore", offset=0.0001, scale=0.0021)
            },
            "warmup_rows_dropped": 33,
            "split": split,
            "parameters": 2_627,
            "training_metrics": {
                "train_loss": trained.history[trained.best_epoch - 1].train_loss,
                "val_loss": trained.history[trained.best_epoch - 1].val_loss,
            },
            "history": trained.history,
            "best_epoch": trained.best_epoch,
            "stopped_early": len(trained.history) < EPOCHS,
            "weights_sha256": sha256(weights).hexdigest(),
            "seed": 42,
            "device": "cpu",
            "threads": 1,
            "versions": Versions(
                ktrdr="0.1.0", python="3.11.9", torch="2.9", numpy="2.3", pandas="2.3", ta_lib="0.6.4"
            ),
            **fields,
        }
    )
    files = {
        WEIGHTS_FILE: weights,
        METADATA_FILE: metadata.model_dump_json().encode(),
        STRATEGY_FILE: STRATEGY.encode(),
        EVALUATION_FILE: as_parquet(table),
    }
    return Case(files, metadata, CONTEXT)


def _dataset(split: SplitRecord) -> DatasetRef:
    digest = sha256(b"bars").hexdigest()
    blob = BlobRef(uri=f"blob:{digest}", sha256=digest, size=120_000)
    return DatasetRef(
        symbol="EURUSD", timeframe="1h", blob=blob, rows=6225, start=split.train.start, end=split.test.end
    )


def _fuzzy(fuzzy_set: str, indicator: str, membership: str, kind: str, *parameters: float) -> FeatureRecord:
    return FeatureRecord(
        feature_id=f"1h_{fuzzy_set}_{membership}",
        timeframe="1h",
        indicator=indicator,
        output="histogram" if indicator.startswith("macd") else "",
        fuzzy_set=fuzzy_set,
        membership=membership,
        membership_type=kind,
        membership_parameters=parameters,
    )


_FEATURES = (
    _fuzzy("rsi_level", "rsi_14", "oversold", "triangular", 0, 20, 35),
    _fuzzy("rsi_level", "rsi_14", "neutral", "trapezoidal", 40, 45, 55, 65),
    _fuzzy("rsi_level", "rsi_14", "overbought", "triangular", 60, 80, 100),
    _fuzzy("macd_push", "macd_12_26_9", "negative", "gaussian", -0.001, 0.0005),
    _fuzzy("macd_push", "macd_12_26_9", "positive", "gaussian", 0.001, 0.0005),
    FeatureRecord(
        feature_id="1h_macd_12_26_9.line_raw", timeframe="1h", indicator="macd_12_26_9", output="line"
    ),
)

CONTEXT = ReportContext(
    model_name="eurusd_momentum/EURUSD_1h_v3",
    model_version=3,
    operation_id="op_0198c0de",
    created_at=datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC),
    timings=(
        StageTiming(stage="Loading data", seconds=0.012),
        StageTiming(stage="Computing indicators", seconds=0.004),
        StageTiming(stage="Training", seconds=1.84),
        StageTiming(stage="Evaluating on the test part", seconds=0.03),
    ),
    peak_memory_bytes=412_000_000,
    device="cpu",
    agent="embedded",
    attempt=1,
)
