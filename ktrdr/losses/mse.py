"""Mean squared error for regression."""

from typing import TYPE_CHECKING, ClassVar

from ktrdr.losses.base import LOSSES, Loss, OutputFormat

if TYPE_CHECKING:
    from torch import Tensor


@LOSSES.register("mse")
class MeanSquaredError(Loss):
    """``e²``, the mean over rows: large errors rule."""

    output_format: ClassVar[OutputFormat] = "regression"

    def mean(self, outputs: "Tensor", targets: "Tensor", class_weights: "Tensor | None") -> "Tensor":
        """Return the scalar mean loss, differentiable."""
        return (outputs.squeeze(1) - targets).square().mean()

    def mean_and_gradient(
        self, outputs: "Tensor", targets: "Tensor", class_weights: "Tensor | None"
    ) -> "tuple[Tensor, Tensor]":
        """Return the mean loss and ``2 e / rows``."""
        errors = outputs.squeeze(1) - targets
        return errors.square().mean(), errors.mul_(2 / len(targets)).unsqueeze(1)
