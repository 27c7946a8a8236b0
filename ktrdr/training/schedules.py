"""Learning rate schedules, by the formulas of `torch.optim.lr_scheduler`."""

import math

from ktrdr.models.metadata import EpochRecord
from ktrdr.strategy.strategy import LrScheduler
from ktrdr.training.optimizers import Optimizer

_THRESHOLD = 1e-4
"""A validation loss that is not lower by this share is a plateau."""


class Schedule:
    """Lowers an optimizer's learning rate from epoch to epoch.

    Args:
        options: how; None for a constant rate.
        optimizer: whose rate.
    """

    def __init__(self, options: LrScheduler | None, optimizer: Optimizer) -> None:
        self._options = options
        self._optimizer = optimizer
        self._lowest = math.inf
        self._bad_epochs = 0

    def after(self, record: EpochRecord) -> None:
        """Set the rate of the next epoch."""
        options = self._options
        if options is None:
            return
        match options.type:
            case "step":
                if record.epoch % options.step_size == 0:
                    self._optimizer.learning_rate *= options.gamma
            case "exponential":
                self._optimizer.learning_rate *= options.gamma
            case "reduce_on_plateau":
                self._watch(record.val_loss, options)

    def _watch(self, val_loss: float, options: LrScheduler) -> None:
        if val_loss < self._lowest * (1 - _THRESHOLD):
            self._lowest = val_loss
            self._bad_epochs = 0
            return
        self._bad_epochs += 1
        if self._bad_epochs > options.patience:
            self._optimizer.learning_rate *= options.factor
            self._bad_epochs = 0
