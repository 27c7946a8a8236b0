"""Saying that the agent is there, and what it holds, which renews the leases."""

import structlog

from host_agent.attempts import Attempts
from host_agent.frames import Ready
from host_agent.link import Link
from host_agent.waiting import wait_until
from ktrdr.clock import Clock
from ktrdr.errors import BusError
from ktrdr.events.training import AgentPresence

UNKNOWN_DEVICE = "unknown"
"""Until a runner has said what it trains on."""

_log = structlog.get_logger()


class Presence:
    """Publishes `AgentPresence` at intervals and at every change."""

    def __init__(
        self,
        *,
        link: Link,
        attempts: Attempts,
        agent_id: str,
        lanes: tuple[str, ...],
        slots: int,
        interval_s: float,
        clock: Clock,
    ) -> None:
        self._link = link
        self._attempts = attempts
        self._agent_id = agent_id
        self._lanes = lanes
        self._slots = slots
        self._interval_s = interval_s
        self._clock = clock
        self._ready: Ready | None = None
        self._is_draining = False

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
        while True:
            self._attempts.changed.clear()
            await self._publish(stopped=False)
            await wait_until(self._attempts.changed, self._clock, self._interval_s)

    async def say_stopped(self) -> None:
        """Publish that the agent is gone."""
        await self._publish(stopped=True)

    async def _publish(self, *, stopped: bool) -> None:
        self._link.check()
        told_detached = [attempt for attempt in self._attempts if attempt.is_detached]
        event = AgentPresence(
            agent_id=self._agent_id,
            state="stopped" if stopped else "draining" if self._is_draining else "ready",
            device=self._ready.device if self._ready else UNKNOWN_DEVICE,
            device_name=self._ready.device_name if self._ready else "",
            memory_bytes=self._ready.memory_bytes if self._ready else 0,
            lanes=self._lanes,
            slots_total=self._slots,
            slots_busy=len(self._attempts.running),
            running=self._attempts.described(),
        )
        try:
            await self._link.publish(event)
        except BusError as error:
            _log.debug("presence not published", reason=str(error))
            return
        for attempt in told_detached:
            attempt.is_detached = False
