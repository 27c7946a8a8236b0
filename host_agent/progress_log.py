"""A line of the log now and then that says how far a training is."""

import structlog

from ktrdr.clock import Clock
from ktrdr.training.progress import Progress, Stage

_INTERVAL_S = 10.0

_log = structlog.get_logger()


class ProgressLog:
    """Logs a training's epochs, so often that one sees it move and so rarely that a day of it can be read."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._epoch = 0
        self._next_at = 0.0

    def put(self, progress: Progress) -> None:
        """Log this, if it is a further epoch and time for a line."""
        now = self._clock.monotonic()
        if progress.stage is not Stage.TRAIN or progress.epoch == self._epoch or now < self._next_at:
            return
        self._epoch = progress.epoch
        self._next_at = now + _INTERVAL_S
        losses = {
            name: float(f"{value:.4g}") for name, value in progress.metrics.items() if name.endswith("loss")
        }
        left = {} if progress.eta_s is None else {"left_s": round(progress.eta_s)}
        _log.info("training", epoch=f"{progress.epoch}/{progress.epochs}", **losses, **left)
