"""Clocks and identifiers of a simulated world: its time, and its randomness."""

import asyncio
import random
import uuid
from datetime import UTC, datetime, timedelta

_BEGINNING = datetime(2026, 1, 5, 9, tzinfo=UTC)
_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"


class SimulatedClock:
    """A `ktrdr.clock.Clock` of one machine."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.wrong_by_s = 0.0
        """How far its wall clock is off; durations it always measures right."""

    def now(self) -> datetime:
        return _BEGINNING + timedelta(seconds=self._loop.time() + self.wrong_by_s)

    def monotonic(self) -> float:
        return self._loop.time()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class SimulatedIds:
    """A `ktrdr.ids.IdFactory` that a seed decides."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng

    def event_id(self) -> str:
        return str(uuid.UUID(int=self._rng.getrandbits(128)))

    def operation_id(self, now: datetime) -> str:
        return f"op-{now:%Y%m%d-%H%M%S}-{self.token()}"

    def token(self) -> str:
        return "".join(self._rng.choice(_ALPHABET) for _ in range(8))

    def seed(self) -> int:
        return self._rng.randrange(10**9)
