"""Subscriptions to queues of RabbitMQ."""

import asyncio
from collections import deque
from collections.abc import Callable
from contextlib import suppress

import structlog
from aiormq.abc import DeliveredMessage
from pamqp.common import FieldTable

from ktrdr.bus.rabbitmq_channels import ChannelPool
from ktrdr.bus.rabbitmq_delivery import Hand, RabbitMQDelivery
from ktrdr.bus.rabbitmq_errors import LIBRARY_ERRORS
from ktrdr.bus.topology import QueueKind
from ktrdr.errors import BusError

_log = structlog.get_logger()


class RabbitMQConsumer:
    """A subscription to one queue, over a channel that it has for itself.

    Args:
        hand: what came over the channel.
        pool: where the channel is from.
        prefetch: how many deliveries may be unsettled or, if none has to be settled, unread.
        tag: the consumer's name.
        cancel_within_s: how long the broker may take to answer.
        on_end: called once, when it ends, with whether it was lost.
        on_drop: called for each delivery that newer ones have pushed out unread.
    """

    def __init__(
        self,
        hand: Hand,
        *,
        pool: ChannelPool,
        prefetch: int,
        tag: str,
        cancel_within_s: float,
        on_end: Callable[["RabbitMQConsumer", bool], None],
        on_drop: Callable[[], None],
    ) -> None:
        self.tag = tag
        self._hand = hand
        self._pool = pool
        self._prefetch = prefetch
        self._cancel_within_s = cancel_within_s
        self._on_end = on_end
        self._on_drop = on_drop
        self._buffer: deque[RabbitMQDelivery] = deque()
        self._changed = asyncio.Event()
        self._is_subscribed = False
        self._lost_at_once: str | None = None
        self._ended = False
        self._cancelling: asyncio.Task[None] | None = None
        self.received = 0
        """Deliveries so far."""
        hand.channel.on_lost = self.lose

    async def subscribe(self, wire_queue: str) -> None:
        """Ask the broker for messages."""
        channel = self._hand.channel
        if self._hand.acknowledge and channel.prefetch != self._prefetch:
            await channel.amqp.basic_qos(prefetch_count=self._prefetch)
            channel.prefetch = self._prefetch
        arguments: FieldTable | None = {"x-stream-offset": "next"} if self.kind is QueueKind.STREAM else None
        await channel.amqp.basic_consume(
            wire_queue,
            self._receive,
            no_ack=not self._hand.acknowledge,
            consumer_tag=self.tag,
            arguments=arguments,
        )
        self._is_subscribed = True
        if self._lost_at_once is not None:
            self.lose(self._lost_at_once)

    def __aiter__(self) -> "RabbitMQConsumer":
        """Return itself."""
        return self

    async def __anext__(self) -> RabbitMQDelivery:
        """Wait for the next delivery; a wait that is cancelled loses none."""
        while True:
            if self._ended:
                raise StopAsyncIteration
            if self._buffer:
                return self._buffer.popleft()
            self._changed.clear()
            await self._changed.wait()

    async def cancel(self) -> None:
        """Take no more: undelivered messages go back; those in hand can still be settled."""
        if not self._ended:
            self._end(was_lost=False)
            self._cancelling = self._pool.in_background(self._cancel())
        if self._cancelling is not None:
            # Not to be interrupted half-way: that would cost the channel, and with it what is in hand.
            await asyncio.shield(self._cancelling)

    @property
    def queue(self) -> str:
        """The queue that it reads."""
        return self._hand.queue

    @property
    def kind(self) -> QueueKind | None:
        """The kind of the queue, if it is known."""
        return self._hand.kind

    @property
    def has_ended(self) -> bool:
        """Whether nothing more comes."""
        return self._ended

    @property
    def has_credit(self) -> bool:
        """Whether the broker may send it another message."""
        return self._hand.unsettled < self._prefetch

    def lose(self, reason: str) -> None:
        """End it because it is gone already: nothing that it has delivered can be settled, or need be."""
        if not self._is_subscribed:
            self._lost_at_once = reason  # who subscribes is told in another way, if it was refused
            return
        if self._ended:
            return
        _log.warning("consumer lost", queue=self.queue, consumer=self.tag, reason=reason)
        self._end(was_lost=True)
        self._buffer.clear()
        self._pool.discard(self._hand.channel)

    def stop(self) -> None:
        """End it, because the connection is about to be closed; that gives back what it has not settled."""
        if not self._ended:
            self._end(was_lost=False)
            self._buffer.clear()

    async def withdraw(self, within_s: float) -> None:
        """Have the broker send nothing more, after `stop`."""
        with suppress(*LIBRARY_ERRORS, TimeoutError):
            async with asyncio.timeout(within_s):
                await self._hand.channel.amqp.basic_cancel(self.tag)

    def _end(self, *, was_lost: bool) -> None:
        self._ended = True
        self._hand.channel.on_lost = None
        self._changed.set()
        self._on_end(self, was_lost)

    async def _receive(self, delivered: DeliveredMessage) -> None:
        self.received += 1
        self._buffer.append(self._hand.take(delivered))
        if not self._hand.acknowledge and len(self._buffer) > self._prefetch:
            self._buffer.popleft()
            self._on_drop()
        self._changed.set()

    async def _cancel(self) -> None:
        channel = self._hand.channel
        try:
            async with asyncio.timeout(self._cancel_within_s):
                # Everything that was on its way is in the buffer when this returns.
                await channel.amqp.basic_cancel(self.tag)
                while self._buffer:
                    await self._buffer.popleft().revoke()
        except (*LIBRARY_ERRORS, BusError, TimeoutError):
            # Whatever it holds is back in the queue when the channel is closed.
            self._buffer.clear()
            self._pool.discard(channel)
        else:
            self._hand.release()
