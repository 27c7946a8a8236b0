"""Keeping the best epoch, and knowing when to stop looking for a better one."""

import math
from typing import Literal

from torch import Tensor

from ktrdr.models.metadata import EpochRecord

Monitor = Literal["val_loss", "val_accuracy"]


class BestEpoch:
    """Holds a copy of the weights of the best epoch so far.

    Args:
        monitor: what decides: the lowest validation loss or the highest validation accuracy.
        patience: epochs without an improvement after which to stop; None to go on to the end.
        min_delta: by how much an epoch must be better to count as an improvement; to be the best epoch, any
            margin is enough.
    """

    def __init__(self, monitor: Monitor, patience: int | None = None, min_delta: float = 0.0) -> None:
        self._monitor = monitor
        self._patience = patience
        self._min_delta = min_delta
        self._best = math.inf
        self._to_beat = math.inf
        self._improved_in = 0
        self._last = 0
        self._weights: Tensor | None = None
        self.epoch = 0
        """1-based; 0 before the first."""

    def offer(self, record: EpochRecord, weights: Tensor) -> None:
        """Take a copy of the weights if this epoch is the best."""
        cost = record.val_loss if self._monitor == "val_loss" else -(record.val_accuracy or 0.0)
        self._last = record.epoch
        if cost < self._best:
            self._best = cost
            self.epoch = record.epoch
            if self._weights is None:
                self._weights = weights.clone()
            else:
                self._weights.copy_(weights)
        if cost < self._to_beat:
            self._to_beat = cost - self._min_delta
            self._improved_in = record.epoch

    @property
    def exhausted(self) -> bool:
        """Whether patience is over."""
        return self._patience is not None and self._last - self._improved_in >= self._patience

    def restore(self, weights: Tensor) -> None:
        """Write the best epoch's weights back."""
        if self._weights is not None:
            weights.copy_(self._weights)
