"""Asking a running training to stop."""

import threading
from typing import Protocol

from ktrdr.errors import TrainingCancelledError


class CancellationToken(Protocol):
    """Is asked by the executor, at least every 50 ms of its work, whether to go on."""

    @property
    def cancelled(self) -> bool:
        """Whether to stop."""


class ManualCancellation:
    """A token that any thread may set, once and for good."""

    def __init__(self) -> None:
        self._event = threading.Event()

    @property
    def cancelled(self) -> bool:
        """Whether `cancel` was called."""
        return self._event.is_set()

    def cancel(self) -> None:
        """Ask the training to stop."""
        self._event.set()


def raise_if_cancelled(token: CancellationToken, *, epoch: int = 0) -> None:
    """Stop here if so asked.

    Raises:
        TrainingCancelledError: with the number of epochs that were complete.
    """
    if token.cancelled:
        raise TrainingCancelledError(epoch)
