"""The loss of a training: the strategy's, with a weight for each class."""

from torch import Tensor

from ktrdr.losses import Loss


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
