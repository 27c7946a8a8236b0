"""The alarm that makes messages of the in-memory bus expire."""

import asyncio
from collections.abc import Callable

from ktrdr.clock import Clock


class ExpiryAlarm:
    """Calls back at the earliest time that it was asked for; has a task only while there is such a time."""

    def __init__(self, clock: Clock, on_due: Callable[[], float | None]) -> None:
        self._clock = clock
        self._on_due = on_due
        """Returns the next time to call it, or None."""
        self._deadline: float | None = None
        self._task: asyncio.Task[None] | None = None

    def set(self, deadline: float) -> None:
        """Call back at that monotonic time, or before."""
        if self._deadline is not None and self._deadline <= deadline:
            return
        self._cancel()
        self._deadline = deadline
        self._task = asyncio.create_task(self._run(deadline), name="memory-bus-expiry")

    async def stop(self) -> None:
        """Forget the time."""
        task = self._cancel()
        if task is not None:
            await asyncio.wait([task])

    def _cancel(self) -> asyncio.Task[None] | None:
        task, self._task, self._deadline = self._task, None, None
        if task is not None:
            task.cancel()
        return task

    async def _run(self, deadline: float) -> None:
        next_deadline: float | None = deadline
        try:
            while next_deadline is not None:
                await self._clock.sleep(max(0.0, next_deadline - self._clock.monotonic()))
                # Meanwhile the deadline just past is before any that is set, so the answer decides.
                next_deadline = self._deadline = self._on_due()
        finally:
            if self._task is asyncio.current_task():
                self._task = self._deadline = None
