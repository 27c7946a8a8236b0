"""Cross-entropy for classification."""

from typing import TYPE_CHECKING, ClassVar

from ktrdr.losses.base import LOSSES, Loss, OutputFormat

if TYPE_CHECKING:
    from torch import Tensor


@LOSSES.register("cross_entropy")
class CrossEntropy(Loss):
    """``-w_t log p_t``, divided by the batch's sum of weights as in `torch.nn.CrossEntropyLoss`.

    A batch whose classes all have weight zero has loss zero.
    """

    output_format: ClassVar[OutputFormat] = "classification"

    def mean(self, outputs: "Tensor", targets: "Tensor", class_weights: "Tensor | None") -> "Tensor":
        """Return the scalar mean loss, differentiable."""
        log_p = outputs.log_softmax(1).gather(1, targets.unsqueeze(1)).squeeze(1)  # (row,)
        if class_weights is None:
            return -log_p.mean()
        shares = _shares(class_weights, targets)
        return -(shares * log_p).sum()

    def mean_and_gradient(
        self, outputs: "Tensor", targets: "Tensor", class_weights: "Tensor | None"
    ) -> "tuple[Tensor, Tensor]":
        """Return the mean loss and ``share_i (p_ij - [j = t_i])``."""
        log_p = outputs.log_softmax(1)  # (row, class)
        index = targets.unsqueeze(1)
        if class_weights is None:
            shares = outputs.new_full((len(targets),), 1 / len(targets))
        else:
            shares = _shares(class_weights, targets)
        loss = -(shares * log_p.gather(1, index).squeeze(1)).sum()
        shares = shares.unsqueeze(1)
        gradient = log_p.exp_().mul_(shares).scatter_add_(1, index, -shares)
        return loss, gradient


def _shares(class_weights: "Tensor", targets: "Tensor") -> "Tensor":
    weights = class_weights[targets]
    return weights / weights.sum().clamp(min=1e-12)  # (row,), adds up to one
