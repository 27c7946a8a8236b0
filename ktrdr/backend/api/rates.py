"""How often somebody may ask."""

import time
from collections import OrderedDict
from collections.abc import Callable

_BURST_S = 2.0
_KNOWN = 10_000


class RateLimit:
    """A token bucket for each client, of which it remembers the latest 10,000.

    Args:
        per_s: requests a second in the long run; twice as many may come at once. 0: any number.
        now: monotonic seconds.
    """

    def __init__(self, per_s: float, *, now: Callable[[], float] = time.monotonic) -> None:
        self.per_s = per_s
        self._now = now
        # When each bucket is full again. One that is forgotten was full, or its client waits for longer than
        # 9,999 others have asked.
        self._full_at: OrderedDict[str, float] = OrderedDict()

    def take(self, client: str) -> float:
        """Count a request and return 0, or return for how many seconds it is too early."""
        wait_s = self.wait_s(client)
        if wait_s == 0 and self.per_s > 0:
            self._full_at[client] = max(self._full_at.pop(client, 0.0), self._now()) + 1 / self.per_s
            if len(self._full_at) > _KNOWN:
                self._full_at.popitem(last=False)
        return wait_s

    def wait_s(self, client: str) -> float:
        """Return for how many seconds a request would be too early; 0 if it may come."""
        if self.per_s <= 0:
            return 0.0
        now = self._now()
        ahead_s = max(self._full_at.get(client, now) - now, 0.0)
        return max(ahead_s + 1 / self.per_s - max(_BURST_S, 1 / self.per_s), 0.0)
