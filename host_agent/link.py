"""The agent's link to the backend: publishing, and knowing for how long that has not worked."""

import asyncio
from collections.abc import Callable

from host_agent.complaint import Complaint
from ktrdr.bus.publisher import EventPublisher
from ktrdr.clock import Clock
from ktrdr.errors import BusError, PublishNackedError, UnroutableError
from ktrdr.events.base import Event


class Link:
    """Publishes events and notices silences that may have cost the leases.

    Args:
        publisher: speaks in the agent's name.
        clock: for durations.
        limit_s: a silence of so long is one in which the leases could not be renewed.
        on_detached: is called when a silence reaches the limit, once for each silence.
    """

    def __init__(
        self,
        publisher: EventPublisher,
        *,
        clock: Clock,
        limit_s: float,
        on_detached: Callable[[], None] = lambda: None,
    ) -> None:
        self._publisher = publisher
        self._clock = clock
        self._limit_s = limit_s
        self._on_detached = on_detached
        self._heard_at = clock.monotonic()
        self._is_detached = False
        self._silence = Complaint("the broker cannot be reached; training goes on", clock)
        self.is_up = asyncio.Event()
        """Set unless the last thing said did not get through."""
        self.is_up.set()

    async def publish(self, event: Event, *, event_id: str | None = None) -> None:
        """Publish an event; returns once the broker has it.

        Raises:
            CodecError: the event cannot be sent, ever.
            BusError: it did not get through, or may not have; try again with the same ``event_id``.
        """
        try:
            await self._publisher.publish(event, event_id=event_id)
        except (UnroutableError, PublishNackedError):
            # The broker is there, and refuses this one.
            self.check()
            raise
        except BusError as error:
            self.is_up.clear()
            self._silence.repeat(reason=str(error))
            self.check()
            raise
        self.check()
        self._silence.withdraw("the broker can be reached again")
        self.is_up.set()
        self._heard_at = self._clock.monotonic()
        self._is_detached = False

    def check(self) -> None:
        """Notice when the silence has become too long."""
        if not self._is_detached and self._clock.monotonic() - self._heard_at >= self._limit_s:
            self._is_detached = True
            self._on_detached()
