"""What a loss is."""

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar, Literal

from ktrdr.parameters import Parameters
from ktrdr.registry import Registry

if TYPE_CHECKING:
    from torch import Tensor

OutputFormat = Literal["classification", "regression"]


class Loss(Parameters, ABC):
    """A mean loss over a batch, with its gradient written out."""

    output_format: ClassVar[OutputFormat]
    """What it is a loss of."""

    @abstractmethod
    def mean(self, outputs: "Tensor", targets: "Tensor", class_weights: "Tensor | None") -> "Tensor":
        """Return the scalar mean loss, differentiable.

        Args:
            outputs: logits (row, class), or predictions (row, 1).
            targets: class numbers (row,) int64, or values (row,) float32.
            class_weights: (class,) float32, or None for unweighted; ignored by regression.
        """

    @abstractmethod
    def mean_and_gradient(
        self, outputs: "Tensor", targets: "Tensor", class_weights: "Tensor | None"
    ) -> "tuple[Tensor, Tensor]":
        """Return the mean loss and its gradient by ``outputs``, without autograd."""


LOSSES: Registry[Loss] = Registry("loss", Loss, "ktrdr.losses")
