"""Whether the bus lets anybody speak: who cannot speak must not be taken for silent."""

from ktrdr.bus.port import Bus
from ktrdr.bus.topology import REQUESTS
from ktrdr.errors import BusUnavailableError, PublishTimeoutError
from ktrdr.events.message import Message
from ktrdr.ids import IdFactory


async def takes_messages(bus: Bus, ids: IdFactory, *, timeout_s: float) -> bool:
    """Return whether the broker confirms messages, which go to nobody.

    A broker that is short of memory or disk blocks whoever publishes, and tells only them: its queues look
    empty from the other end. It still takes the first message of each connection, so that one proves nothing.
    """
    try:
        for _ in range(2):
            message = Message(body=b"", message_id=ids.event_id(), type="ktrdr.probe", persistent=False)
            # No lane has an empty name.
            await bus.publish(
                message, exchange=REQUESTS, routing_key="", mandatory=False, timeout_s=timeout_s
            )
    except (BusUnavailableError, PublishTimeoutError):
        return False
    return True
