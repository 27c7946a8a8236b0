"""Focal loss for classification."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from ktrdr.losses.base import LOSSES, Loss, OutputFormat

if TYPE_CHECKING:
    from torch import Tensor

_TINY = 1.2e-38
"""Keeps ``(1 - p)`` off zero: for gamma < 1 the derivative of its power is infinite there."""


@LOSSES.register("focal")
class Focal(Loss):
    """``-w_t (1 - p_t)^gamma log p_t``, the plain mean over rows: easy rows count for less.

    Source: Lin et al., "Focal Loss for Dense Object Detection" (2017), equation 5, with the class weight as
    alpha.
    """

    output_format: ClassVar[OutputFormat] = "classification"
    former_names: ClassVar[Mapping[str, str]] = {"focal_gamma": "gamma"}

    gamma: Annotated[float, Field(ge=0, le=20, allow_inf_nan=False)] = 2.0
    """0 is cross-entropy; the higher, the less a row counts that is already right."""

    def mean(self, outputs: "Tensor", targets: "Tensor", class_weights: "Tensor | None") -> "Tensor":
        """Return the scalar mean loss, differentiable."""
        log_p = outputs.log_softmax(1).gather(1, targets.unsqueeze(1)).squeeze(1)  # (row,)
        # 1 - exp(log p) by expm1: exact also where p is so near to one that 1 - p would round to zero.
        loss = -((-log_p.expm1()).clamp(min=_TINY) ** self.gamma) * log_p
        if class_weights is not None:
            loss = class_weights[targets] * loss
        return loss.mean()

    def mean_and_gradient(
        self, outputs: "Tensor", targets: "Tensor", class_weights: "Tensor | None"
    ) -> "tuple[Tensor, Tensor]":
        """Return the mean loss and its gradient by the logits.

        With ``s = w_t (gamma (1 - p_t)^(gamma - 1) p_t log p_t - (1 - p_t)^gamma)``, which is ``p_t`` times
        the derivative by it, the gradient of row i is ``s_i ([j = t_i] - p_ij) / rows``.
        """
        index = targets.unsqueeze(1)
        log_p = outputs.log_softmax(1)  # (row, class)
        log_pt = log_p.gather(1, index)  # (row, 1)
        p = log_p.exp_()
        rest = log_pt.expm1().neg_().clamp_(min=_TINY)  # 1 - p_t
        power = rest**self.gamma
        scale = power / rest * self.gamma * p.gather(1, index) * log_pt - power
        loss = -(power * log_pt)
        if class_weights is not None:
            weights = class_weights[index]
            scale *= weights
            loss *= weights
        scale /= len(targets)
        gradient = (p * -scale).scatter_add_(1, index, scale)
        return loss.mean(), gradient
