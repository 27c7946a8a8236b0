"""Saying that the agent is there, and what it holds, which renews the leases."""

import asyncio
import random

import structlog

from host_agent.attempts import Attempt, Attempts
from host_agent.frames import Ready
from host_agent.link import Link
from host_agent.waiting import Backoff, wait_until
from ktrdr.clock import Clock
from ktrdr.errors import BusError
from ktrdr.events.training import AgentPresence, RunningAttempt

UNKNOWN_DEVICE = "unknown"
"""Until a runner has said what it trains on."""

_SHORTEST_INTERVAL_S = 0.25
"""A job of no length would otherwise be three events of presence."""

_YOUNG_S = 2.0
"""Until then the acceptance speaks for an attempt. Presence would overtake it on its way to the database, or
the answer to a short job, and have the backend look up what it is about to know or knows no more."""

IDLE_INTERVALS = 3
"""So many pass, within half a lease, before one that holds nothing, and so renews none, speaks again."""

_log = structlog.get_logger()


class Presence:
    """Publishes `AgentPresence` at intervals and at every change.

    Args:
        link: publishes.
        attempts: what the agent holds.
        agent_id: of the agent.
        lanes: that it serves.
        slots: how many trainings it runs at a time.
        listening: set while orders reach the agent; before the first time it is not there for anyone.
        interval_s: between two events, at most, while it holds something.
        lease_s: of an attempt; a backend takes one that is silent for so long for gone, whatever it holds.
        clock: for the interval.
        rng: spreads what is tried again.
    """

    def __init__(
        self,
        *,
        link: Link,
        attempts: Attempts,
        agent_id: str,
        lanes: tuple[str, ...],
        slots: int,
        listening: asyncio.Event,
        interval_s: float,
        lease_s: float,
        clock: Clock,
        rng: random.Random,
    ) -> None:
        self._link = link
        self._attempts = attempts
        self._agent_id = agent_id
        self._lanes = lanes
        self._slots = slots
        self._listening = listening
        self._interval_s = interval_s
        self._idle_interval_s = max(interval_s, min(IDLE_INTERVALS * interval_s, lease_s / 2))
        self._young_s = min(_YOUNG_S, interval_s)
        self._clock = clock
        self._rng = rng
        self._ready: Ready | None = None
        self._is_there = False
        self._is_draining = False
        self._keeps_some_back = False

    @property
    def device(self) -> Ready | None:
        """What the agent trains on, once a runner has said it."""
        return self._ready

    def set_device(self, ready: Ready) -> None:
        """Note what the agent trains on."""
        if self._ready is None:
            self._ready = ready
            self._attempts.changed.set()

    def set_draining(self) -> None:
        """Note that the agent takes no more work."""
        self._is_draining = True
        self._attempts.changed.set()

    async def run(self) -> None:
        """Publish, until this is cancelled."""
        await self._listening.wait()
        self._is_there = True
        shortest_s = min(_SHORTEST_INTERVAL_S, self._interval_s)
        retries = Backoff(shortest_s, self._interval_s, self._rng)
        while True:
            self._attempts.changed.clear()
            if await self._publish(stopped=False):
                retries.reset()
                await self._clock.sleep(shortest_s)
                await wait_until(self._attempts.changed, self._clock, self._longest_s() - shortest_s)
            else:
                await self._clock.sleep(retries.next())

    async def say_stopped(self) -> None:
        """Publish that the agent is gone; if the broker is gone too, that says the same."""
        if self._is_there and self._link.is_up.is_set():
            await self._publish(stopped=True)

    async def _publish(self, *, stopped: bool) -> bool:
        self._link.check()
        standing = self._attempts.standing
        told = [attempt for attempt in standing if not self._is_young(attempt)]
        detached = [attempt for attempt in told if attempt.is_detached]
        event = AgentPresence(
            agent_id=self._agent_id,
            state="stopped" if stopped else "draining" if self._is_draining else "ready",
            device=self._ready.device if self._ready else UNKNOWN_DEVICE,
            device_name=self._ready.device_name if self._ready else "",
            memory_bytes=self._ready.memory_bytes if self._ready else 0,
            lanes=self._lanes,
            slots_total=self._slots,
            slots_busy=len(self._attempts.running),
            running=tuple(_described(attempt) for attempt in told),
        )
        try:
            await self._link.publish(event)
        except BusError as error:
            _log.debug("presence not published", reason=str(error))
            return False
        for attempt in detached:
            attempt.is_detached = False
        self._keeps_some_back = len(told) < len(standing)
        return True

    def _longest_s(self) -> float:
        if self._keeps_some_back:
            return self._young_s
        return self._interval_s if self._attempts.standing else self._idle_interval_s

    def _is_young(self, attempt: Attempt) -> bool:
        return attempt.told_at is not None and self._clock.monotonic() - attempt.told_at < self._young_s


def _described(attempt: Attempt) -> RunningAttempt:
    claim = attempt.claim
    return RunningAttempt(
        operation_id=claim.operation_id,
        attempt=claim.attempt,
        claim_id=claim.claim_id,
        detached=attempt.is_detached,
    )
