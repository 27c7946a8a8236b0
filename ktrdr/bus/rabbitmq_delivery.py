"""What consumers hold: deliveries, each settled once, on the channel that they came over."""

import asyncio
from collections.abc import Awaitable, Callable
from enum import Enum

from aiormq.abc import DeliveredMessage

from ktrdr.bus.rabbitmq_arguments import WireNames
from ktrdr.bus.rabbitmq_channels import ChannelPool, PooledChannel
from ktrdr.bus.rabbitmq_errors import LIBRARY_ERRORS
from ktrdr.bus.rabbitmq_messages import from_delivered, has_stream_offset
from ktrdr.bus.topology import QueueKind
from ktrdr.errors import BusError, BusUnavailableError
from ktrdr.events.message import Message

_WRITTEN_WITHIN_S = 5.0

Explain = Callable[["RabbitMQDelivery", str], Awaitable[bool]]
"""Publishes a copy of a delivery with the reason for its rejection; returns whether the broker has it."""


class _State(Enum):
    UNSETTLED = "unsettled"
    ACKED = "acked"
    NACKED = "nacked"
    REJECTED = "rejected"
    REVOKED = "given back when its consumer ended"


class Hand:
    """Counts what came over a channel and is unsettled: until then the channel has no other use."""

    def __init__(
        self,
        channel: PooledChannel,
        queue: str,
        kind: QueueKind | None,
        *,
        acknowledge: bool,
        pool: ChannelPool,
        names: WireNames,
        explain: Explain,
    ) -> None:
        self.channel = channel
        self.queue = queue
        self.kind = kind
        """Of the queue, if it is known."""
        self.acknowledge = acknowledge
        """Whether the broker waits for deliveries to be settled."""
        self._pool = pool
        self._names = names
        self.explain = explain
        self.unsettled = 0
        """Deliveries that nobody has settled."""
        self._is_released = False

    def take(self, delivered: DeliveredMessage) -> "RabbitMQDelivery":
        """Take a message in."""
        self.unsettled += self.acknowledge
        return RabbitMQDelivery(self, delivered, from_delivered(delivered, self._names))

    def is_of_stream(self, delivered: DeliveredMessage) -> bool:
        """Whether a message came from a stream."""
        return self.kind is QueueKind.STREAM or (self.kind is None and has_stream_offset(delivered))

    def settled(self) -> None:
        """Take note that one is settled."""
        self.unsettled -= 1
        self._hand_back()

    def release(self) -> None:
        """Nothing more comes over the channel: once all is settled, others may use it."""
        self._is_released = True
        self._hand_back()

    def _hand_back(self) -> None:
        if self._is_released and self.unsettled == 0:
            self._pool.hand_back(self.channel)


class RabbitMQDelivery:
    """One message that a consumer holds until it settles it, exactly once."""

    __slots__ = ("_hand", "_is_of_stream", "_message", "_redelivered", "_state", "_tag", "routing_key")

    def __init__(self, hand: Hand, delivered: DeliveredMessage, message: Message) -> None:
        self._hand = hand
        self._message = message
        self._tag = delivered.delivery_tag or 0
        self._redelivered = bool(delivered.redelivered)
        self._is_of_stream = hand.is_of_stream(delivered)
        self._state = _State.UNSETTLED
        self.routing_key = delivered.routing_key or ""

    @property
    def message(self) -> Message:
        """The message."""
        return self._message

    @property
    def queue(self) -> str:
        """The queue that it came from."""
        return self._hand.queue

    @property
    def redelivered(self) -> bool:
        """Whether it was delivered before, to anyone."""
        return self._redelivered

    async def ack(self) -> None:
        """Settle it: the work is done, or safely recorded elsewhere."""
        await self._settle(_State.ACKED)

    async def nack(self) -> None:
        """Give it back to the head of its queue."""
        await self._settle(_State.NACKED)

    async def reject(self, reason: str) -> None:
        """Dead-letter it, with the reason, or without if the broker does not take a copy that has one."""
        self._begin(_State.REJECTED)
        try:
            is_explained = not self._is_of_stream and await self._hand.explain(self, reason)
        except BaseException:
            self._state = _State.UNSETTLED
            raise
        await self._send(_State.ACKED if is_explained else _State.REJECTED)

    def revoke(self) -> Awaitable[None]:
        """Make it impossible to settle, and give it back."""
        self._state = _State.REVOKED
        return self._send(_State.NACKED)

    async def _settle(self, state: _State) -> None:
        self._begin(state)
        await self._send(state)

    def _begin(self, state: _State) -> None:
        if self._state is not _State.UNSETTLED:
            raise BusError(
                f"A delivery of {self.queue} was settled before: it was {self._state.value}.",
                fix="Settle each delivery once, while its bus is open.",
            )
        if self._hand.acknowledge and not self._hand.channel.is_open:
            raise self._lost()
        self._state = state

    async def _send(self, state: _State) -> None:
        if not self._hand.acknowledge:
            return
        channel = self._hand.channel.amqp
        try:
            # Nobody reads what is written to a connection that was just lost.
            async with asyncio.timeout(_WRITTEN_WITHIN_S):
                # A stream has nothing but acks; the broker ends the connection of who tries.
                if state is _State.ACKED or self._is_of_stream:
                    await channel.basic_ack(self._tag, wait=False)
                elif state is _State.NACKED:
                    # RabbitMQ 4.3 counts what is rejected as a failed delivery, and not what is nacked.
                    await channel.basic_nack(self._tag, wait=False)
                else:
                    await channel.basic_reject(self._tag, requeue=False, wait=False)
        except (*LIBRARY_ERRORS, TimeoutError) as error:
            raise self._lost() from error
        finally:
            self._hand.settled()

    def _lost(self) -> BusUnavailableError:
        return BusUnavailableError(
            f"The channel that brought a delivery of {self.queue} was lost; the message comes again."
        )
