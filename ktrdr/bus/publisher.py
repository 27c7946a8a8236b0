"""Events onto the bus."""

from ktrdr.bus.port import Bus
from ktrdr.bus.topology import route
from ktrdr.clock import Clock
from ktrdr.events.base import Event
from ktrdr.events.codec import Envelope, Packed, encode
from ktrdr.ids import IdFactory


class EventPublisher:
    """Encodes events and publishes each where it belongs, in the name of one sender."""

    def __init__(self, bus: Bus, *, sender: str, ids: IdFactory, clock: Clock, timeout_s: float) -> None:
        self._bus = bus
        self._sender = sender
        """As in ``backend@host``."""
        self._ids = ids
        self._clock = clock
        self._timeout_s = timeout_s

    async def publish(
        self,
        event: Event,
        *,
        event_id: str | None = None,
        expiration_s: float | None = None,
        packed: Packed | None = None,
    ) -> str:
        """Publish an event and return its id, once the broker has confirmed it.

        Args:
            event: what to say.
            event_id: of an event that is said again, so that whoever heard it knows; a new one if None.
            expiration_s: dead-letter it if nobody has taken it after so long.
            packed: the event, if `pack` was called before.

        Raises:
            CodecError: the event cannot be sent, now or ever.
            BusError: the event did not get through, or after a time-out may not have; publishing it again
                with the same ``event_id`` is safe.
        """
        event_id = event_id or self._ids.event_id()
        envelope = Envelope(event, event_id=event_id, sender=self._sender, occurred_at=self._clock.now())
        where = route(event)
        await self._bus.publish(
            encode(envelope, expiration_s=expiration_s, packed=packed),
            exchange=where.exchange,
            routing_key=where.routing_key,
            mandatory=where.mandatory,
            timeout_s=self._timeout_s,
        )
        return event_id
