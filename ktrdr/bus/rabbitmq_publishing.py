"""Publishing with confirms over RabbitMQ."""

import asyncio
from collections.abc import Mapping

from ktrdr.bus.rabbitmq_arguments import WireNames
from ktrdr.bus.rabbitmq_connection import RabbitMQConnection
from ktrdr.bus.rabbitmq_lane import Lane, Outgoing
from ktrdr.bus.rabbitmq_messages import check_routing_key, to_properties
from ktrdr.bus.rabbitmq_stats import Tally
from ktrdr.bus.topology import DEFAULT_EXCHANGE
from ktrdr.errors import (
    BusClosedError,
    BusError,
    BusUnavailableError,
    PublishBlockedError,
    PublishNackedError,
    PublishTimeoutError,
    UnroutableError,
)
from ktrdr.events.message import Message

_LARGE_BYTES = 256 * 1024


class Publisher:
    """Publishes over one connection, on three channels.

    A broker answers what it does not like by closing the channel, and every publish that is in flight on it
    fails along. So what may be refused for its size, or because nobody has declared its exchange, goes one by
    one on channels of its own.

    Args:
        connection: for publishing alone: while the broker is short of memory, it hears nothing else on it.
        names: on the wire.
        user: whom the broker knows us as.
        max_unconfirmed: how many publishes may be in flight; the others wait.
        tally: counts what becomes of them.
    """

    def __init__(
        self,
        connection: RabbitMQConnection,
        *,
        names: WireNames,
        user: str,
        max_unconfirmed: int,
        tally: Tally,
    ) -> None:
        self._connection = connection
        self._names = names
        self._user = user
        self._tally = tally
        self._usual = Lane(connection, max_unconfirmed)
        self._large = Lane(connection, 1)
        self._doubtful = Lane(connection, 1)
        self._doubt = asyncio.Lock()

    async def publish(
        self, message: Message, *, exchange: str, routing_key: str, mandatory: bool, timeout_s: float
    ) -> None:
        """Return once the broker has confirmed the message; see `ktrdr.bus.port.Bus.publish`."""
        routing_key = self._names.routing_key(exchange, routing_key)
        check_routing_key(routing_key)
        outgoing = Outgoing(
            body=message.body,
            properties=to_properties(message, user=self._user),
            message_id=message.message_id,
            exchange=self._names.wire(exchange),
            routing_key=routing_key,
            mandatory=mandatory,
        )
        try:
            async with asyncio.timeout(timeout_s):
                await self._publish(outgoing)
        except TimeoutError as error:
            self._tally.count("publishes_timed_out")
            raise self._too_late(timeout_s) from error
        except BusError as error:
            self._tally.count(_COUNTED.get(type(error), "publishes_refused"))
            if isinstance(error, BusUnavailableError) and self._connection.is_closed:
                raise BusClosedError(f"{error.message} This bus was closed.") from error
            raise
        self._tally.count("publishes_confirmed")

    async def close(self) -> None:
        """End what goes on in the background, after the connection was closed."""
        for lane in (self._usual, self._large, self._doubtful):
            await lane.close()

    async def _publish(self, outgoing: Outgoing) -> None:
        if len(outgoing.body) > _LARGE_BYTES:
            await self._large.publish(outgoing)
            return
        known = self._usual.known_exchanges
        if outgoing.exchange not in known and outgoing.exchange != DEFAULT_EXCHANGE:
            async with self._doubt:
                if outgoing.exchange not in known:
                    await self._doubtful.publish(outgoing)
                    known.add(outgoing.exchange)
                    return
        await self._usual.publish(outgoing)

    def _too_late(self, timeout_s: float) -> BusError:
        if not self._connection.is_connected:
            return self._connection.unavailable()
        if self._connection.is_blocked:
            return PublishBlockedError(
                f"The broker is short of memory or disk and takes no messages: not in {timeout_s:g} s.",
                fix="Give it more, or empty its fullest queues; then publish again, under the same id.",
            )
        return PublishTimeoutError(
            f"The broker has not confirmed a message within {timeout_s:g} s; whether it has it is unknown.",
            fix="Publish it again, under the same id.",
        )


_COUNTED: Mapping[type[BusError], str] = {
    UnroutableError: "publishes_returned",
    PublishNackedError: "publishes_nacked",
    BusUnavailableError: "publishes_interrupted",
}
