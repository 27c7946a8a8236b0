"""Noticing consumers that the broker no longer has, although nobody was told."""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Collection

from ktrdr.bus.rabbitmq_arguments import WireNames
from ktrdr.bus.rabbitmq_channels import ChannelPool
from ktrdr.bus.rabbitmq_consumer import RabbitMQConsumer
from ktrdr.bus.rabbitmq_stats import Tally
from ktrdr.bus.topology import QueueKind
from ktrdr.errors import BusError, BusUnavailableError


class Watchdog:
    """Asks the broker now and then what it has, and ends the consumers that are there for us alone.

    A queue tells how many consumers it has, of whoever, and how many messages wait. So a consumer is suspect
    if its queue has fewer than we have there, or if messages wait although it could take one and gets none.
    One that is suspect twice in a row, with no delivery in between, has vanished: a queue that is about to
    change its leader answers that it has nothing.

    Args:
        pool: of channels, to ask over.
        names: on the wire.
        consumers: returns those that should be there.
        interval_s: between two looks.
        tally: counts what was found.
    """

    def __init__(
        self,
        pool: ChannelPool,
        *,
        names: WireNames,
        consumers: Callable[[], Collection[RabbitMQConsumer]],
        interval_s: float,
        tally: Tally,
    ) -> None:
        self._pool = pool
        self._names = names
        self._consumers = consumers
        self._interval_s = interval_s
        self._tally = tally
        self._suspects: dict[RabbitMQConsumer, int] = {}
        """How many deliveries each had when it became suspect."""

    async def run(self) -> None:
        """Look for ever."""
        while True:
            await asyncio.sleep(self._interval_s)
            await self.look()

    async def look(self) -> None:
        """Look once at every queue that is consumed."""
        by_queue: defaultdict[str, list[RabbitMQConsumer]] = defaultdict(list)
        for consumer in self._consumers():
            by_queue[consumer.queue].append(consumer)
        suspects: dict[RabbitMQConsumer, int] = {}
        for queue, consumers in by_queue.items():
            received = {consumer: consumer.received for consumer in consumers}
            for consumer in await self._suspicious(queue, consumers):
                if self._suspects.get(consumer) == received[consumer] == consumer.received:
                    self._tally.count("consumers_vanished")
                    consumer.lose("the broker no longer has it")
                else:
                    suspects[consumer] = received[consumer]
        self._suspects = suspects

    async def _suspicious(
        self, queue: str, consumers: Collection[RabbitMQConsumer]
    ) -> Collection[RabbitMQConsumer]:
        name = self._names.wire(queue)
        try:
            async with self._pool.asking(f"looking at '{name}'") as channel:
                told = await channel.amqp.queue_declare(name, passive=True)
        except BusUnavailableError:
            return ()
        except BusError:
            return [consumer for consumer in consumers if not consumer.has_ended]
        # A stream does not tell how many read it, and keeps what everyone has read; and of a queue that this
        # bus has not declared, the kind is not known.
        countable = (QueueKind.QUORUM, QueueKind.CLASSIC)
        there = [each for each in consumers if not each.has_ended and each.kind in countable]
        if (told.consumer_count or 0) < len(there):
            return there
        return [consumer for consumer in there if told.message_count and consumer.has_credit]
