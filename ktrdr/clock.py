"""Time, as a parameter."""

import asyncio
import time
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """Where time comes from; a simulation passes its own."""

    def now(self) -> datetime:
        """Return the wall-clock time, aware, in UTC: for records only, never for durations."""

    def monotonic(self) -> float:
        """Return seconds since some fixed point: for durations, leases and deadlines."""

    async def sleep(self, seconds: float) -> None:
        """Return after that many monotonic seconds."""


class SystemClock:
    """The machine's clocks."""

    def now(self) -> datetime:
        """Return the wall-clock time in UTC."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Return the monotonic clock in seconds."""
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        """Sleep in the running event loop."""
        await asyncio.sleep(seconds)
