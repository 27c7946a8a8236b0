"""What the training loop is fed: samples of one part, and the order in which an epoch takes them."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ktrdr.features.windows import offsets


@dataclass(frozen=True, slots=True)
class Samples:
    """Samples of one part, on the device."""

    table: Tensor
    """(row, feature) float32, of all parts."""
    ends: Tensor
    """(sample,) int64: the row of the table at which each sample's window ends."""
    targets: Tensor
    """(sample,): class numbers int64, or values float32."""
    window: int = 1
    """Rows of the table that make one sample."""
    weights: Tensor | None = None
    """(sample,) float64 on the CPU: how often each is drawn, relative to others; None: each once."""

    def __len__(self) -> int:
        return len(self.targets)

    @property
    def values_per_sample(self) -> int:
        """Numbers that the network is given for one sample."""
        return self.window * self.table.shape[1]

    def inputs(self, numbers: Tensor) -> Tensor:
        """Return (sample, feature), or (sample, row, feature) where a window has several rows."""
        ends = self.ends[numbers]
        if self.window == 1:
            return self.table[ends]
        within = torch.from_numpy(offsets(self.window)).to(ends.device)
        return self.table[ends.unsqueeze(1) + within]


class RowOrder:
    """Draws the order of an epoch: every sample once; or, where they have weights, as many with replacement.

    Drawing by weight rather than weighing the loss keeps each step's size the same: samples whose labels
    overlap are seen less often, not with smaller steps.
    """

    def __init__(self, samples: Samples, generator: torch.Generator) -> None:
        self._count = len(samples)
        self._device = samples.targets.device
        self._generator = generator
        self._up_to = None if samples.weights is None else samples.weights.cumsum(0)

    def draw(self) -> Tensor:
        """Return sample numbers, on the device of the samples."""
        if self._up_to is None:
            order = torch.randperm(self._count, generator=self._generator)
        else:
            # Not torch.multinomial, which is limited to 2^24 samples.
            drawn = torch.rand(self._count, generator=self._generator, dtype=torch.float64)
            order = torch.searchsorted(self._up_to, drawn * self._up_to[-1], right=True)
            order.clamp_(max=self._count - 1)
        return order.to(self._device)
