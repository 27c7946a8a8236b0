"""Waiting for the first of two things, by the agent's clock; and between two tries."""

import asyncio
import random
from collections.abc import Awaitable

from ktrdr.clock import Clock

_SPREAD = 0.25


async def wait_until(event: asyncio.Event, clock: Clock, timeout_s: float) -> bool:
    """Wait for the event, so long at most; return whether it is set."""
    if not event.is_set():
        await first_of(event.wait(), clock.sleep(timeout_s))
    return event.is_set()


async def first_of(*awaitables: Awaitable[object]) -> None:
    """Wait until one is done and cancel the others; what it raised is raised here."""
    tasks = [asyncio.ensure_future(awaitable) for awaitable in awaitables]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for task in done:
        task.result()


class Backoff:
    """Pauses that double from one failure to the next, each a little shorter or longer.

    Args:
        first_s: about the first pause.
        limit_s: about the longest.
        rng: spreads them by a quarter, so that agents that failed together do not try again together.
    """

    def __init__(self, first_s: float, limit_s: float, rng: random.Random) -> None:
        self._first_s = first_s
        self._limit_s = limit_s
        self._next_s = first_s
        self._rng = rng

    def next(self) -> float:
        """Return the pause after one more failure, in seconds."""
        pause_s = self._next_s
        self._next_s = min(2 * pause_s, self._limit_s)
        return pause_s * self._rng.uniform(1 - _SPREAD, 1 + _SPREAD)

    def reset(self) -> None:
        """Begin anew, after a success."""
        self._next_s = self._first_s
