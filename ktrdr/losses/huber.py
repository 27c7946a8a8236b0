"""Huber loss for regression."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from ktrdr.losses.base import LOSSES, Loss, OutputFormat

if TYPE_CHECKING:
    from torch import Tensor


@LOSSES.register("huber")
class Huber(Loss):
    """Half the squared error up to ``delta``, linear beyond: ``c (e - c/2)`` with ``c = clip(e, ±delta)``.

    Source: Huber, "Robust Estimation of a Location Parameter" (1964).
    """

    output_format: ClassVar[OutputFormat] = "regression"
    former_names: ClassVar[Mapping[str, str]] = {"huber_delta": "delta"}

    delta: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 0.01
    """In units of the target: 0.01 is a return of one percent."""

    def mean(self, outputs: "Tensor", targets: "Tensor", class_weights: "Tensor | None") -> "Tensor":
        """Return the scalar mean loss, differentiable."""
        errors = outputs.squeeze(1) - targets
        clipped = errors.clamp(-self.delta, self.delta)
        return (clipped * (errors - clipped / 2)).mean()

    def mean_and_gradient(
        self, outputs: "Tensor", targets: "Tensor", class_weights: "Tensor | None"
    ) -> "tuple[Tensor, Tensor]":
        """Return the mean loss and ``clip(e, ±delta) / rows``."""
        errors = outputs.squeeze(1) - targets
        clipped = errors.clamp(-self.delta, self.delta)
        loss = (clipped * (errors - clipped / 2)).mean()
        return loss, clipped.div_(len(targets)).unsqueeze(1)
