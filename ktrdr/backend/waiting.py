"""Waiting for an event or a time, and calling what blocks, on the caller's clock and threads."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol, TypeVar
from weakref import WeakValueDictionary

from ktrdr.clock import Clock

T = TypeVar("T")


class Offload(Protocol):
    """Runs a blocking function away from the event loop, as `asyncio.to_thread` does."""

    def __call__(self, function: Callable[[], T], /) -> Awaitable[T]:
        """Return the function's result."""


async def wait_for(event: asyncio.Event, clock: Clock, seconds: float | None) -> bool:
    """Return whether the event was set within so many seconds; None: without a limit."""
    if seconds is None:
        return await event.wait()
    return await wait_for_any((event,), clock, seconds)


async def wait_for_any(events: Sequence[asyncio.Event], clock: Clock, seconds: float) -> bool:
    """Return whether one of the events was set within so many seconds."""
    if not any(event.is_set() for event in events) and seconds > 0:
        until: list[Awaitable[object]] = [clock.sleep(seconds), *(event.wait() for event in events)]
        waiting = [asyncio.ensure_future(each) for each in until]
        try:
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for each in waiting:
                each.cancel()
    return any(event.is_set() for event in events)


class Turns:
    """Who does something of the same key, one after the other."""

    def __init__(self) -> None:
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    def of(self, key: str) -> asyncio.Lock:
        """Return what to hold meanwhile."""
        lock = self._locks.get(key)
        if lock is None:
            self._locks[key] = lock = asyncio.Lock()
        return lock
