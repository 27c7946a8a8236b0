"""A clock that only moves when it is told to."""

import asyncio
import heapq
import itertools
from datetime import UTC, datetime, timedelta


class VirtualClock:
    """Implements `ktrdr.clock.Clock`; time passes in `advance`, and nowhere else."""

    def __init__(self) -> None:
        self._elapsed = 0.0
        self._order = itertools.count()
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []

    def now(self) -> datetime:
        return datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=self._elapsed)

    def monotonic(self) -> float:
        return self._elapsed

    async def sleep(self, seconds: float) -> None:
        wake = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self._elapsed + seconds, next(self._order), wake))
        await wake

    async def advance(self, seconds: float) -> None:
        """Let that much time pass, and whoever wakes up meanwhile run."""
        end = self._elapsed + seconds
        await run_everything()
        while self._sleepers and self._sleepers[0][0] <= end:
            moment, _, wake = heapq.heappop(self._sleepers)
            self._elapsed = max(self._elapsed, moment)
            if not wake.done():
                wake.set_result(None)
                await run_everything()
        self._elapsed = end

    @property
    def sleepers(self) -> int:
        """How many still wait for their time."""
        return sum(not wake.done() for _, _, wake in self._sleepers)


async def run_everything() -> None:
    """Give every task that can run the time to do so; nothing here takes more than a few turns."""
    waiting = asyncio.get_running_loop()._ready  # type: ignore[attr-defined]
    for _ in range(20):
        await asyncio.sleep(0)
        if not waiting:  # What else there is waits for its time, or for another thread.
            return
