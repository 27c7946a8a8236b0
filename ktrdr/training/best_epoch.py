"""Keeping the best epoch, and knowing when to stop looking for a better one."""

import math

from torch import Tensor

from ktrdr.models.metadata import EpochRecord
from ktrdr.strategy.strategy import EarlyStopping


class BestEpoch:
    """Holds a copy of the weights of the best epoch so far.

    The best is the one with the lowest validation loss or the highest validation accuracy, by any margin.
    What counts as an improvement, for patience, must be better by ``min_delta``.

    Args:
        stopping: what decides, and when to stop; None to go by the validation loss, to the last epoch.
    """

    def __init__(self, stopping: EarlyStopping | None) -> None:
        self._by_accuracy = stopping is not None and stopping.monitor == "val_accuracy"
        self._patience = stopping.patience if stopping else math.inf
        self._min_delta = stopping.min_delta if stopping else 0.0
        self._best = math.inf
        self._to_beat = math.inf
        self._improved_in = 0
        self._last = 0
        self._weights: Tensor | None = None
        self.epoch = 0
        """1-based; 0 before the first."""

    def offer(self, record: EpochRecord, weights: Tensor) -> None:
        """Take a copy of the weights if this epoch is the best."""
        cost = -(record.val_accuracy or 0.0) if self._by_accuracy else record.val_loss
        self._last = record.epoch
        if cost < self._best:
            self._best = cost
            self.epoch = record.epoch
            self._weights = weights.clone()
        if cost < self._to_beat:
            self._to_beat = cost - self._min_delta
            self._improved_in = record.epoch

    @property
    def exhausted(self) -> bool:
        """Whether patience is over."""
        return self._last - self._improved_in >= self._patience

    def restore(self, weights: Tensor) -> None:
        """Write the best epoch's weights back."""
        if self._weights is not None:
            weights.copy_(self._weights)
