"""From a batch to the gradient: what a step is, and one by autograd for any network."""

from contextlib import AbstractContextManager
from typing import Protocol

import torch
from torch import Tensor, nn

from ktrdr.training.flat import FlatParameters
from ktrdr.training.weighted_loss import WeightedLoss


class Step(Protocol):
    """Computes one batch."""

    def grad_mode(self) -> AbstractContextManager[object]:
        """Return the autograd mode that the whole fit runs in."""

    def begin(self, rows: int) -> None:
        """Prepare for batches that add up to this many rows."""

    def __call__(self, inputs: Tensor, targets: Tensor, outputs: Tensor) -> None:
        """Write the network's outputs into ``outputs``, and the gradient into its `FlatParameters`."""


class AutogradStep:
    """Serves every network."""

    def __init__(self, module: nn.Module, flat: FlatParameters, loss: WeightedLoss) -> None:
        self._module = module
        self._flat = flat
        self._loss = loss

    def grad_mode(self) -> AbstractContextManager[object]:
        """Return ``no_grad``: only the batch itself is recorded."""
        return torch.no_grad()

    def begin(self, rows: int) -> None:
        """Switch dropout on."""
        self._module.train()

    def __call__(self, inputs: Tensor, targets: Tensor, outputs: Tensor) -> None:
        """Compute one batch."""
        self._flat.gradient.zero_()
        with torch.enable_grad():
            batch_outputs = self._module(inputs)
            torch.autograd.backward(self._loss.mean(batch_outputs, targets))
        outputs.copy_(batch_outputs.detach())
