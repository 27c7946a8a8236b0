"""How many rows of each class there are, and what each class weighs in the loss."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ktrdr.errors import DataError
from ktrdr.training.split import PARTS, PartName, Split

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]
Float32Array = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class ClassBalance:
    """Of one split."""

    counts: Mapping[PartName, IntArray]
    """Rows of each class, by part."""
    weights: Float32Array
    """By class, from the training part."""


def balance_classes(
    targets: IntArray, split: Split, classes: Sequence[str], drawn: FloatArray | None = None
) -> ClassBalance:
    """Count the classes and weigh them.

    Args:
        targets: class numbers of all rows.
        split: which rows are in which part.
        classes: their names; every one gets a weight, also one that the training part lacks.
        drawn: how often each row is drawn in training, relative to others; None: all alike.

    Raises:
        DataError: the training part has rows of one class only.
    """
    counts = {part: np.bincount(targets[split.rows(part)], minlength=len(classes)) for part in PARTS}
    if np.count_nonzero(counts["train"]) < 2:
        only = classes[int(counts["train"].argmax())]
        raise DataError(
            f"All {len(split.train)} rows of the training part have the label {only}: nothing can be learnt.",
            fix="Change training.labels so that other labels occur, or use a longer range of dates.",
        )
    weights = None if drawn is None else drawn[split.train]
    seen = np.bincount(targets[split.train], weights=weights, minlength=len(classes))
    return ClassBalance(counts, inverse_frequency(seen))


def inverse_frequency(counts: npt.NDArray[np.float64 | np.int64]) -> Float32Array:
    """Return a weight per class, so that every class that occurs counts as much as any other.

    The weight is proportional to 1 / rows, and 1 on average over the classes that occur. A class without rows
    has weight 0: nothing was learnt of it, and the validation loss is not to be ruled by rows of it.

    Args:
        counts: training rows of each class, as often as they are drawn; at least one is not zero.
    """
    occurs = counts > 0
    inverse = np.divide(1.0, counts, out=np.zeros(len(counts)), where=occurs)
    weights: Float32Array = (inverse / inverse[occurs].mean()).astype(np.float32)
    return weights
