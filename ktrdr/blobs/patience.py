"""How long a call goes on trying when a store does not answer."""

import random
import time
from collections.abc import Callable

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.1, 5.0


class Patience:
    """Pauses between tries that double, with jitter, until nothing has been achieved for too long.

    Args:
        limit_s: so long without any progress.
        monotonic: seconds.
        sleep: blocks for so many seconds, or less if there is no reason to wait any more.
    """

    def __init__(
        self,
        limit_s: float,
        *,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        self._limit_s = limit_s
        self._monotonic = monotonic
        self._sleep = sleep
        self._pause_s = _FIRST_PAUSE_S
        self._since = monotonic()

    def progressed(self) -> None:
        """Begin anew: something got through."""
        self._pause_s = _FIRST_PAUSE_S
        self._since = self._monotonic()

    def pause(self, error: Exception) -> None:
        """Wait before the next try, or raise the error if there shall be none."""
        left_s = self._since + self._limit_s - self._monotonic()
        if left_s <= 0:
            raise error
        # Half of it at random, so that many who lost the same server do not come back at once.
        pause_s = self._pause_s * (0.5 + random.random() / 2)  # noqa: S311  (no secret)
        self._pause_s = min(2 * self._pause_s, _LONGEST_PAUSE_S)
        self._sleep(min(pause_s, left_s))
