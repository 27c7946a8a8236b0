"""How good the model is on the test part, next to baselines that need no training."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from ktrdr.losses import LOSSES, Loss
from ktrdr.models.metadata import ClassMetrics
from ktrdr.training.labelled_rows import LabelledRows
from ktrdr.training.metrics import (
    FloatArray,
    IntArray,
    classification_metrics,
    confusion_matrix,
    log_loss,
    per_class_metrics,
    regression_metrics,
)
from ktrdr.training.split import Split

Metrics = Mapping[str, float]
Float32Array = npt.NDArray[np.float32]

BASELINE_METRICS = ("accuracy", "balanced_accuracy", "macro_f1", "mse", "mae", "sign_accuracy")
"""Those of a baseline that are told beside the model's own."""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What is known of the model after the test."""

    metrics: Metrics
    baselines: Mapping[str, Metrics]
    """Baseline → the metrics that apply to it."""
    per_class: tuple[ClassMetrics, ...] = ()
    confusion: tuple[tuple[int, ...], ...] = ()
    """Rows: true class; columns: predicted class."""

    def summary(self) -> dict[str, float]:
        """Return the metrics, and those of the baselines as ``baseline_<name>_<metric>``."""
        return {
            **self.metrics,
            **{
                f"baseline_{name}_{metric}": metrics[metric]
                for name, metrics in self.baselines.items()
                for metric in BASELINE_METRICS
                if metric in metrics
            },
        }


def evaluate(
    rows: LabelledRows,
    split: Split,
    predictions: Float32Array,
    classes: Sequence[str],
    loss: Loss,
) -> Evaluation:
    """Judge predictions on the test part.

    Args:
        rows: all labelled rows.
        split: which rows are in which part; of the training part, only the labels are looked at.
        predictions: (row, output) of all labelled rows: probabilities, or values.
        classes: names of the classes; none for regression.
        loss: of the strategy; its mean is among the metrics of a regression.
    """
    returns = rows.last_returns[split.test]
    if classes:
        counts = np.bincount(rows.targets[split.train].astype(np.int64), minlength=len(classes))
        actual = rows.targets[split.test].astype(np.int64)
        return _evaluate_classifier(actual, predictions[split.test], classes, counts, returns)
    values = rows.targets.astype(np.float64)
    predicted = predictions[split.test, 0].astype(np.float64)
    return _evaluate_regressor(values[split.test], predicted, loss, values[split.train].mean(), returns)


def _evaluate_classifier(
    actual: IntArray,
    probabilities: Float32Array,
    classes: Sequence[str],
    train_counts: IntArray,
    last_returns: FloatArray,
) -> Evaluation:
    confusion = confusion_matrix(actual, probabilities.argmax(axis=1), len(classes))
    guesses = {"majority_class": np.full(len(actual), train_counts.argmax())}
    if {"BUY", "HOLD", "SELL"} <= set(classes):
        by_sign = np.array([classes.index(name) for name in ("SELL", "HOLD", "BUY")])
        guesses["last_return_sign"] = by_sign[np.sign(last_returns).astype(np.int64) + 1]
    return Evaluation(
        metrics={**classification_metrics(confusion), "log_loss": log_loss(actual, probabilities)},
        baselines={
            name: classification_metrics(confusion_matrix(actual, guess, len(classes)))
            for name, guess in guesses.items()
        },
        per_class=per_class_metrics(confusion, classes),
        confusion=tuple(tuple(int(count) for count in row) for row in confusion),
    )


def _evaluate_regressor(
    actual: FloatArray,
    predicted: FloatArray,
    loss: Loss,
    train_mean: float,
    last_returns: FloatArray,
) -> Evaluation:
    loss_name = LOSSES.name_of(type(loss))

    def judge(guess: FloatArray) -> Metrics:
        mean_loss = loss.mean(torch.from_numpy(guess).unsqueeze(1), torch.from_numpy(actual), None)
        return {**regression_metrics(actual, guess), loss_name: float(mean_loss)}

    return Evaluation(
        metrics=judge(predicted),
        baselines={
            "training_mean": judge(np.full(len(actual), train_mean)),
            "last_return_sign": judge(last_returns),
        },
    )
