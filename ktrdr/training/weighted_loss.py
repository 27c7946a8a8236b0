"""The loss of a training: the strategy's, with a weight for each class."""

import numpy as np
import numpy.typing as npt
from torch import Tensor

from ktrdr.losses import Loss


def inverse_frequency(counts: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
    """Return a weight per class, so that every class that occurs counts as much as any other.

    The weight is proportional to 1 / rows, and 1 on average over the classes that occur. A class without rows
    has weight 0: nothing was learnt of it, and the validation loss is not to be ruled by rows of it.

    Args:
        counts: training rows of each class; at least one is not zero.
    """
    occurs = counts > 0
    inverse = np.divide(1.0, counts, out=np.zeros(len(counts)), where=occurs)
    weights: npt.NDArray[np.float32] = (inverse / inverse[occurs].mean()).astype(np.float32)
    return weights


class WeightedLoss:
    """A loss and its class weights."""

    def __init__(self, loss: Loss, class_weights: Tensor | None) -> None:
        self._loss = loss
        self._class_weights = class_weights

    def mean(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the scalar mean loss, differentiable."""
        return self._loss.mean(outputs, targets, self._class_weights)

    def gradient(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the gradient of the mean loss by the outputs."""
        return self._loss.mean_and_gradient(outputs, targets, self._class_weights)[1]
