"""Test metrics, in NumPy."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ktrdr.models.metadata import ClassMetrics

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]


def confusion_matrix(actual: IntArray, predicted: IntArray, classes: int) -> IntArray:
    """Return counts (class, class): rows are the true class, columns the predicted one."""
    pairs = np.bincount(actual * classes + predicted, minlength=classes * classes)
    return pairs.reshape(classes, classes).astype(np.int64)


def per_class_metrics(confusion: IntArray, names: Sequence[str]) -> tuple[ClassMetrics, ...]:
    """Return precision, recall, F1 and support of each class; 0 where a denominator is 0."""
    hits = np.diag(confusion)
    support, predicted = confusion.sum(axis=1), confusion.sum(axis=0)
    precision, recall = _ratio(hits, predicted), _ratio(hits, support)
    f1 = _ratio(2 * hits, support + predicted)
    return tuple(
        ClassMetrics(
            label=name,
            support=int(support[number]),
            precision=float(precision[number]),
            recall=float(recall[number]),
            f1=float(f1[number]),
        )
        for number, name in enumerate(names)
    )


def classification_metrics(confusion: IntArray) -> dict[str, float]:
    """Return accuracy, balanced accuracy and macro F1.

    Balanced accuracy is the mean recall of the classes that occur; macro F1 is over those that occur or are
    predicted.
    """
    hits = np.diag(confusion)
    support, predicted = confusion.sum(axis=1), confusion.sum(axis=0)
    occurs = support > 0
    seen = support + predicted > 0
    return {
        "accuracy": float(hits.sum() / confusion.sum()),
        "balanced_accuracy": float(_ratio(hits, support)[occurs].mean()),
        "macro_f1": float(_ratio(2 * hits, support + predicted)[seen].mean()),
    }


def log_loss(actual: IntArray, probabilities: npt.NDArray[np.float32]) -> float:
    """Return the mean negative log of the probability of the true class, which counts as at least 2e-16."""
    chosen = probabilities[np.arange(len(actual)), actual].astype(np.float64)
    return float(-np.log(chosen.clip(min=np.finfo(np.float64).eps)).mean())


def regression_metrics(actual: FloatArray, predicted: FloatArray) -> dict[str, float]:
    """Return mean squared and absolute error, R² and the share of equal signs (up, down, none)."""
    errors = predicted - actual
    squared = float((errors**2).sum())
    total = float(((actual - actual.mean()) ** 2).sum())
    return {
        "mse": squared / len(actual),
        "mae": float(np.abs(errors).mean()),
        # Of a constant, R² is 1 if it is met and 0 if not.
        "r2": 1 - squared / total if total > 0 else float(squared == 0),
        "sign_accuracy": float((np.sign(actual) == np.sign(predicted)).mean()),
    }


def _ratio(numerator: IntArray, denominator: IntArray) -> FloatArray:
    return np.divide(numerator, denominator, out=np.zeros(len(numerator)), where=denominator > 0)
