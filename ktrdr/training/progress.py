"""What the executor reports while it works: typed values, apart from the logs."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from ktrdr.logs.steps import NumberedStep


class Stage(NumberedStep):
    """The numbered steps of a training, the same in every mode."""

    LOAD = (1, "Loading data")
    INDICATORS = (2, "Computing indicators")
    MEMBERSHIPS = (3, "Computing fuzzy memberships")
    LABELS = (4, "Labelling bars")
    SPLIT = (5, "Splitting train, validation and test")
    TRAIN = (6, "Training")
    EVALUATE = (7, "Evaluating on the test part")
    PACKAGE = (8, "Packaging the model")


@dataclass(frozen=True, slots=True)
class Progress:
    """Where the executor is."""

    stage: Stage
    fraction: float
    """Of the whole training, 0 to 1; never falls within an attempt."""
    epoch: int = 0
    """Epochs complete."""
    epochs: int = 0
    """Epochs at most; early stopping may end sooner."""
    batch: int = 0
    batches: int = 0
    metrics: Mapping[str, float] = field(default_factory=dict)
    """Of the last complete epoch: ``train_loss``, ``val_loss``, ``val_accuracy``, ``learning_rate``."""
    earlier: tuple[tuple[int, Mapping[str, float]], ...] = ()
    """Epochs before that one and their metrics, of the last two seconds: whoever skips some reports has every
    epoch all the same."""
    eta_s: float | None = None
    """Seconds to the end of training, by the epochs so far; None before the first is complete."""


class Observer(Protocol):
    """Is told of progress, in the executor's thread: must be quick and must not raise."""

    def on_progress(self, progress: Progress) -> None:
        """Take note of where the executor is."""


class SilentObserver:
    """Ignores progress."""

    def on_progress(self, progress: Progress) -> None:
        """Do nothing."""
