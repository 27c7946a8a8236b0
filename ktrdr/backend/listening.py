"""All that the backend listens to, and whether anybody could be heard."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress

import structlog

from ktrdr.backend.leases import Leases
from ktrdr.backend.subscription import Subscription
from ktrdr.backend.waiting import wait_for_any
from ktrdr.bus.port import Bus
from ktrdr.bus.topology import REQUESTS, shared_topology
from ktrdr.clock import Clock
from ktrdr.errors import (
    AccessRefusedError,
    BusClosedError,
    BusError,
    BusUnavailableError,
    PublishTimeoutError,
)
from ktrdr.events.message import Message
from ktrdr.ids import IdFactory

_log = structlog.get_logger()

_STARTING_PAUSES_S = (0.5, 1.0, 2.0, 4.0)
"""A broker that has just started lets us in before it finds all its queues."""


class Listening:
    """The subscriptions of one backend.

    Args:
        bus: where they are.
        leases: begin anew when something is heard again that could not be heard.
        clock: for pauses.
        ids: for the messages that try whether the broker takes any.
        timeout_s: of such a message.
    """

    def __init__(self, bus: Bus, leases: Leases, *, clock: Clock, ids: IdFactory, timeout_s: float) -> None:
        self._bus = bus
        self._leases = leases
        self._clock = clock
        self._ids = ids
        self._timeout_s = timeout_s
        self.subscriptions: Sequence[Subscription] = ()
        """What decides about leases."""
        self.asides: Sequence[Subscription] = ()
        """What nothing depends on, and nothing waits for."""

    async def declare(self) -> None:
        """Declare the topology, and what each subscription has for itself.

        A broker that is away is waited for later.

        Raises:
            BusError: the broker has something else under our names, or does not let us in.
            BusClosedError: the bus was closed.
        """
        for pause_s in (*_STARTING_PAUSES_S, None):
            try:
                await self._bus.declare(shared_topology())
                for subscription in (*self.subscriptions, *self.asides):
                    await subscription.declare()
            except (BusClosedError, AccessRefusedError):
                raise
            except (BusUnavailableError, PublishTimeoutError) as error:
                _log.warning("the broker is away; work begins when it is back", reason=str(error))
            except BusError as error:
                if pause_s is None:
                    raise
                _log.info("the broker is not ready", reason=str(error))
                await self._clock.sleep(pause_s)
                continue
            return

    def start(self, group: asyncio.TaskGroup) -> None:
        """Listen, until the group is cancelled."""
        for subscription in (*self.subscriptions, *self.asides):
            group.create_task(subscription.run())

    @property
    def idle(self) -> bool:
        """Whether every queue is empty and nothing is in hand."""
        return all(subscription.idle for subscription in (*self.subscriptions, *self.asides))

    @property
    def is_listening(self) -> bool:
        """Whether any queue is being read."""
        return any(subscription.listening for subscription in self.subscriptions)

    @property
    def held_up_by(self) -> str | None:
        """What is in the way of results, for so long that no queue of them is read; None: nothing."""
        return next((each.stood_back_for for each in self.subscriptions if each.stood_back_for), None)

    async def settle(self) -> None:
        """Return once any queue is being read, or that is not to be expected any more.

        What was lost, or first looked for, only just now has as long to come as a message to be confirmed.
        """
        deaf_since = max(subscription.deaf_since for subscription in self.subscriptions)
        left_s = deaf_since + self._timeout_s - self._clock.monotonic()
        await wait_for_any([each.reading for each in self.subscriptions], self._clock, left_s)

    def last_idle(self) -> float:
        """Return when everything was last read and done, in monotonic seconds; now, if it is."""
        return min(subscription.last_idle() for subscription in self.subscriptions)

    def heard_again(self) -> None:
        """Take note that one of the subscriptions was lost, and is back."""
        listening = sum(subscription.listening for subscription in self.subscriptions)
        # The first that is back is alone: until then nothing at all could be heard.
        self._leases.begin_anew(with_limits=listening == 1)

    async def why_cut_off(self) -> str | None:
        """Return why nobody can be heard, or None: who cannot speak must not be taken for silent."""
        if not self.is_listening:
            return "no queue is being read"
        # A broker that is short of memory or disk blocks whoever publishes, and tells only them: its queues
        # look empty from the other end. It still takes the first message of each connection, so that one
        # proves nothing. They go to nobody: no lane has an empty name.
        try:
            for _ in range(2):
                await self._publish_to_nobody()
        except (BusUnavailableError, PublishTimeoutError) as error:
            return str(error)
        except BusError as error:
            # Somebody has deleted an exchange, perhaps, which no consumer notices.
            with suppress(BusError):
                await self._bus.declare(shared_topology())
            return str(error)
        return None

    async def _publish_to_nobody(self) -> None:
        message = Message(body=b"", message_id=self._ids.event_id(), type="ktrdr.probe", persistent=False)
        await self._bus.publish(
            message, exchange=REQUESTS, routing_key="", mandatory=False, timeout_s=self._timeout_s
        )
