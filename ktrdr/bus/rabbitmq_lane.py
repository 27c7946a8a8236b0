"""A channel to publish on, with confirms, opened anew whenever it is lost."""

import asyncio
from contextlib import suppress
from dataclasses import dataclass

from aiormq import Channel
from aiormq.exceptions import (
    AMQPChannelError,
    ChannelAccessRefused,
    ChannelNotFoundEntity,
    ChannelPreconditionFailed,
    DeliveryError,
    PublishError,
)

from ktrdr.bus.rabbitmq_connection import RabbitMQConnection
from ktrdr.bus.rabbitmq_errors import LIBRARY_ERRORS, bus_error, is_asked_to_stop
from ktrdr.bus.rabbitmq_messages import MessageProperties
from ktrdr.errors import BusError, BusUnavailableError, PublishNackedError, UnroutableError

_DRAIN_BYTES = 64 * 1024
_NAME_OF_DEFAULT_EXCHANGE = "amq.default"
"""In permissions, and when they refuse it."""


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A message on its way; names are those of the wire."""

    body: bytes
    properties: MessageProperties
    message_id: str
    exchange: str
    routing_key: str
    mandatory: bool


class Lane:
    """One channel at a time, and a limit to what is in flight on it.

    Args:
        connection: where the channel is opened.
        limit: how many publishes may be in flight. Thousands at once would starve each other.
    """

    def __init__(self, connection: RabbitMQConnection, limit: int) -> None:
        self._connection = connection
        self._slots = asyncio.Semaphore(limit)
        self._channel: _ConfirmingChannel | None = None
        self._opening: asyncio.Task[_ConfirmingChannel] | None = None
        self._background: set[asyncio.Task[None]] = set()
        self.known_exchanges: set[str] = set()
        """Those to which something was published over the channel of now."""

    async def publish(self, outgoing: Outgoing) -> None:
        """Publish as soon as there is room, and return once it is confirmed; has no time limit of its own.

        Raises:
            BusError: it was not confirmed, and will not be.
        """
        async with self._slots:
            await self._connection.unblocked()
            while not (channel := await self._current()).take(outgoing.message_id):
                await channel.wait_for(outgoing.message_id)
            try:
                await channel.publish(outgoing)
            finally:
                if not channel.is_usable:
                    self._leave(channel)
            self.known_exchanges.add(outgoing.exchange)

    async def close(self) -> None:
        """End what goes on in the background, after the connection was closed."""
        tasks: set[asyncio.Task[object]] = {*self._background}
        if self._opening is not None:
            self._opening.cancel()
            tasks.add(self._opening)
        if tasks:
            await asyncio.wait(tasks)

    async def _current(self) -> "_ConfirmingChannel":
        if self._channel is not None and self._channel.is_usable:
            return self._channel
        if self._opening is None:
            self._opening = asyncio.create_task(self._open())
            self._opening.add_done_callback(self._opened)
        # Whoever gives up waiting must not take the channel away from the others.
        return await asyncio.shield(self._opening)

    async def _open(self) -> "_ConfirmingChannel":
        amqp = await self._connection.open_channel(confirms=True)
        self.known_exchanges.clear()  # the connection may have taken the last channel along
        self._channel = _ConfirmingChannel(amqp)
        return self._channel

    def _opened(self, opening: "asyncio.Task[_ConfirmingChannel]") -> None:
        self._opening = None
        if not opening.cancelled():
            opening.exception()  # it is told to those who wait, if there are any

    def _leave(self, channel: "_ConfirmingChannel") -> None:
        """Publish nothing more on a channel, and close it when nothing is in flight on it."""
        if self._channel is channel:
            self._channel = None
            self.known_exchanges.clear()
        if channel.is_idle:
            task = asyncio.create_task(channel.close(self._connection.limits.request_s))
            self._background.add(task)
            task.add_done_callback(self._background.discard)


class _ConfirmingChannel:
    def __init__(self, amqp: Channel) -> None:
        self._amqp = amqp
        self._in_flight: dict[str, asyncio.Event] = {}
        self._is_spoilt = False

    @property
    def is_usable(self) -> bool:
        # A channel that the broker is closing leaves its connection before it knows itself.
        is_ours = self._amqp.connection.channels.get(self._amqp.number) is self._amqp
        return is_ours and not self._is_spoilt and not self._amqp.is_closed

    @property
    def is_idle(self) -> bool:
        return not self._in_flight

    def take(self, message_id: str) -> bool:
        """Claim an id: a message that is returned is known by it alone, so it is never in flight twice."""
        if not self.is_usable or message_id in self._in_flight:
            return False
        self._in_flight[message_id] = asyncio.Event()
        return True

    async def wait_for(self, message_id: str) -> None:
        """Wait until an id is no longer in flight."""
        if (done := self._in_flight.get(message_id)) is not None:
            await done.wait()

    async def publish(self, outgoing: Outgoing) -> None:
        """Publish a message whose id is taken. Nothing may be awaited in between."""
        try:
            await self._amqp.basic_publish(
                outgoing.body,
                exchange=outgoing.exchange,
                routing_key=outgoing.routing_key,
                properties=outgoing.properties,
                mandatory=outgoing.mandatory,
                # Not to fill the memory with what the socket does not take yet.
                wait=len(outgoing.body) > _DRAIN_BYTES,
            )
        except LIBRARY_ERRORS as error:
            raise _publish_error(error, outgoing) from error
        except asyncio.CancelledError as error:
            # It may be in flight still, and is published again under its id: on another channel.
            self._is_spoilt = True
            if is_asked_to_stop():
                raise
            raise _interrupted(outgoing, "the connection was lost") from error
        finally:
            self._in_flight.pop(outgoing.message_id).set()

    async def close(self, timeout_s: float) -> None:
        with suppress(*LIBRARY_ERRORS, TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._amqp.close()


def _publish_error(error: Exception, outgoing: Outgoing) -> BusError:
    where = f"'{outgoing.exchange or 'the default exchange'}' for '{outgoing.routing_key}'"
    match error:
        case PublishError():
            return UnroutableError(
                f"No queue is bound to {where}.",
                fix="Declare the topology, with the lane that is meant, before publishing.",
            )
        case DeliveryError():
            return PublishNackedError(
                f"A queue behind {where} refused the message: it is full, or cannot store it now.",
                fix="See in the management UI which queue grows, and why nobody empties it.",
            )
        case ChannelPreconditionFailed() if f"message size {len(outgoing.body)} " in str(error):
            return PublishNackedError(
                f"A message of {len(outgoing.body):,} bytes is over the broker's limit: {error}.",
                fix="Send large content by reference.",
            )
        case AMQPChannelError() if _concerns(error, outgoing):
            return bus_error(error, f"publishing to {where}")
        case AMQPChannelError():
            return _interrupted(outgoing, f"the broker closed the channel because of another ({error})")
        case _:
            return _interrupted(outgoing, f"the connection was lost ({error})")


def _concerns(error: AMQPChannelError, outgoing: Outgoing) -> bool:
    exchange = f"exchange '{outgoing.exchange or _NAME_OF_DEFAULT_EXCHANGE}'"
    match error:
        case ChannelNotFoundEntity():
            return exchange in str(error)
        case ChannelAccessRefused():
            return exchange in str(error) and (
                "topic '" not in str(error) or f"topic '{outgoing.routing_key}'" in str(error)
            )
    return False


def _interrupted(outgoing: Outgoing, why: str) -> BusUnavailableError:
    return BusUnavailableError(
        f"Whether the broker has message '{outgoing.message_id}' is unknown: {why}.",
        fix="Publish it again, under the same id.",
    )
