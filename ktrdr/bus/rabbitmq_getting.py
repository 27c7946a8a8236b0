"""Single messages of a queue, without a subscription."""

import asyncio
from collections import defaultdict
from collections.abc import Callable

from pamqp.commands import Basic

from ktrdr.bus.rabbitmq_channels import ChannelPool, PooledChannel
from ktrdr.bus.rabbitmq_delivery import Hand, RabbitMQDelivery


class Getter:
    """Takes messages one by one, over a channel for each queue: what is in hand of one ends with its channel.

    Args:
        pool: of channels.
        new_hand: makes the hand for a channel and a queue.
    """

    def __init__(self, pool: ChannelPool, new_hand: Callable[[PooledChannel, str], Hand]) -> None:
        self._pool = pool
        self._new_hand = new_hand
        self._hands: dict[str, Hand] = {}
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def get(self, queue: str, wire_queue: str) -> RabbitMQDelivery | None:
        """Take the next message; None if none is ready.

        Raises:
            BusError: there is no such queue, or it cannot be read so.
        """
        async with self._locks[queue]:
            hand = self._hands.get(queue)
            held = hand.channel if hand is not None and hand.channel.is_open else None
            async with self._pool.borrowing(f"getting a message of '{wire_queue}'", held) as channel:
                if hand is None or hand.channel is not channel:
                    hand = self._hands[queue] = self._new_hand(channel, queue)
                delivered = await channel.amqp.basic_get(wire_queue)
            return None if isinstance(delivered.delivery, Basic.GetEmpty) else hand.take(delivered)
