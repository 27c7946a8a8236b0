"""Where a training is: progress to its observer, numbered steps to the log, timings for the manifest."""

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

import structlog

from ktrdr.clock import Clock
from ktrdr.events.references import StageTiming
from ktrdr.models.metadata import EpochRecord
from ktrdr.training.cancellation import CancellationToken, raise_if_cancelled
from ktrdr.training.progress import Observer, Progress, Stage

_SHARES = {
    Stage.LOAD: 0.01,
    Stage.INDICATORS: 0.01,
    Stage.MEMBERSHIPS: 0.01,
    Stage.LABELS: 0.01,
    Stage.SPLIT: 0.01,
    Stage.TRAIN: 0.91,
    Stage.EVALUATE: 0.02,
    Stage.PACKAGE: 0.02,
}
"""Of the whole training, so that a progress bar moves evenly."""

_WITHIN_EPOCH_S = 0.1
_TOLD_AGAIN_S = 2.0
_TOLD_AGAIN = 64
"""Epochs at most: more than are made between two reports that get through, 50 ms apart."""

_log = structlog.get_logger()


class Note(Protocol):
    """Adds details of a stage to its debug line."""

    def __call__(self, **details: object) -> None:
        """Note them."""


class Reporter:
    """Accompanies one training through its stages.

    Args:
        observer: is told of progress.
        cancellation: is asked whether to go on.
        clock: for durations.
    """

    def __init__(self, observer: Observer, cancellation: CancellationToken, clock: Clock) -> None:
        self._observer = observer
        self._cancellation = cancellation
        self._clock = clock
        self._timings: list[StageTiming] = []
        self._stage = Stage.LOAD
        self._before = 0.0  # shares of the stages before this one
        self._epoch = 0
        self._epochs = 0
        self._batches = 0
        self._metrics: dict[str, float] = {}
        # When each epoch was complete, and its metrics; the newest is the last.
        self._recent: deque[tuple[float, int, dict[str, float]]] = deque(maxlen=_TOLD_AGAIN + 1)
        self._training_since = 0.0
        self._reported_at = 0.0

    @property
    def timings(self) -> tuple[StageTiming, ...]:
        """How long each stage took that is over."""
        return tuple(self._timings)

    def check(self) -> None:
        """Stop here if so asked; raises `TrainingCancelledError`."""
        raise_if_cancelled(self._cancellation, epoch=self._epoch)

    @contextmanager
    def stage(self, stage: Stage) -> Iterator[Note]:
        """Log and time one stage, and report its start; stages come in their order."""
        self.check()
        _log.info(stage.step)
        self._stage = stage
        self._before = sum(share for other, share in _SHARES.items() if other.number < stage.number)
        self._report(0.0)
        noted: dict[str, object] = {}
        since = self._clock.monotonic()
        yield noted.update
        seconds = self._clock.monotonic() - since
        self._timings.append(StageTiming(stage=stage.title, seconds=seconds))
        _log.debug("stage done", stage=stage.title, seconds=round(seconds, 4), **noted)

    def begin_epochs(self, epochs: int, batches: int) -> None:
        """Note how much there is to train."""
        self._epochs = epochs
        self._batches = batches
        self._training_since = self._clock.monotonic()

    def batch_done(self, batch: int) -> None:
        """Note a batch of the current epoch, counted from 1; reports every 100 ms."""
        self.check()
        if self._clock.monotonic() - self._reported_at >= _WITHIN_EPOCH_S:
            self._report_training(batch)

    def epoch_done(self, record: EpochRecord) -> None:
        """Report a complete epoch."""
        self._epoch = record.epoch
        metrics = record.model_dump(exclude={"epoch"}, exclude_none=True)
        self._metrics = {name: float(value) for name, value in metrics.items()}
        self._recent.append((self._clock.monotonic(), self._epoch, self._metrics))
        self._report_training(0)
        _log.debug("epoch done", epoch=self._epoch, epochs=self._epochs, **self._metrics)
        self.check()

    def finished(self) -> None:
        """Report that all is done."""
        self._before = 1.0
        self._report(0.0)

    def _report_training(self, batch: int) -> None:
        done = self._epoch + batch / self._batches
        eta_s = None
        if self._epoch:
            eta_s = (self._clock.monotonic() - self._training_since) / done * (self._epochs - done)
        self._report(done / self._epochs, batch, eta_s)

    def _report(self, share: float, batch: int = 0, eta_s: float | None = None) -> None:
        self._reported_at = self._clock.monotonic()
        self._observer.on_progress(
            Progress(
                stage=self._stage,
                fraction=self._before + _SHARES[self._stage] * share,
                epoch=self._epoch,
                epochs=self._epochs,
                batch=batch,
                batches=self._batches,
                metrics=self._metrics,
                earlier=self._earlier(),
                eta_s=eta_s,
            )
        )

    def _earlier(self) -> tuple[tuple[int, dict[str, float]], ...]:
        since = self._reported_at - _TOLD_AGAIN_S
        return tuple(
            (epoch, metrics) for at, epoch, metrics in self._recent if at >= since and epoch != self._epoch
        )
