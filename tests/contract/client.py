"""A connection as the contract's tests use it: short names, bodies as text, a time limit on every wait."""

import asyncio
from dataclasses import replace

from ktrdr.bus.port import Bus, Consumer, Delivery
from ktrdr.bus.topology import Binding, Exchange, ExchangeKind, Queue, QueueKind, Topology
from ktrdr.events.message import Message
from tests.contract.harness import BrokerHarness

PATIENCE_S = 60.0


def message(text: str, **properties: object) -> Message:
    """A message whose body and id say the same."""
    return replace(
        Message(body=text.encode(), message_id=text, type="test.message.v1"),
        **properties,  # type: ignore[arg-type]  # whoever calls names fields of Message
    )


def text(delivery: Delivery) -> str:
    return delivery.message.body.decode()


class Client:
    """Wraps a bus; names are made unique for the test."""

    def __init__(self, harness: BrokerHarness, bus: Bus) -> None:
        self.harness = harness
        self.bus = bus

    async def close(self) -> None:
        await self.bus.close()

    def name(self, name: str) -> str:
        return self.harness.unique(name)

    async def declare_exchange(self, name: str, kind: ExchangeKind = ExchangeKind.DIRECT) -> None:
        await self.bus.declare(Topology(exchanges=(Exchange(self.name(name), kind),)))

    async def declare_queue(self, name: str, kind: QueueKind = QueueKind.QUORUM, **arguments: object) -> None:
        exchanges = ("dead_letter_exchange", "reject_exchange")
        given = {
            key: self.name(str(value)) if key in exchanges else value for key, value in arguments.items()
        }
        await self.bus.declare(Topology(queues=(Queue(self.name(name), kind, **given),)))  # type: ignore[arg-type]  # as for message

    async def bind(self, exchange: str, queue: str, key: str = "") -> None:
        await self.bus.declare(Topology(bindings=(Binding(self.name(exchange), self.name(queue), key),)))

    async def declare_bound_queue(
        self, queue: str, kind: QueueKind = QueueKind.QUORUM, **arguments: object
    ) -> None:
        """A queue that gets what is published to the exchange ``in`` with its name as the key."""
        await self.declare_exchange("in")
        await self.declare_queue(queue, kind, **arguments)
        await self.bind("in", queue, queue)

    async def declare_graveyard(self) -> None:
        """The exchange ``dead``, and the queue ``graves`` that takes everything from it."""
        await self.declare_exchange("dead", ExchangeKind.TOPIC)
        await self.declare_queue("graves")
        await self.bind("dead", "graves", "#")

    async def publish(
        self, message: Message, *, exchange: str = "in", key: str = "work", mandatory: bool = True
    ) -> None:
        await self.bus.publish(
            message,
            exchange=self.name(exchange),
            routing_key=key,
            mandatory=mandatory,
            timeout_s=PATIENCE_S,
        )

    async def publish_all(self, *texts: str, **where: str) -> None:
        for each in texts:
            await self.publish(message(each), **where)  # type: ignore[arg-type]  # never mandatory=

    async def consume(
        self, queue: str = "work", *, prefetch: int = 10, tag: str = "consumer", acknowledge: bool = True
    ) -> Consumer:
        return await self.bus.consume(
            self.name(queue), prefetch=prefetch, consumer_tag=self.name(tag), acknowledge=acknowledge
        )

    async def next_or_none(self, consumer: Consumer) -> Delivery | None:
        """The next delivery, or None if the broker has none for us, nor will have."""
        waiting = asyncio.ensure_future(anext(consumer))
        quiet = asyncio.ensure_future(self.harness.be_quiet())
        await asyncio.wait((waiting, quiet), return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        await asyncio.wait((waiting, quiet))
        return None if waiting.cancelled() else waiting.result()

    async def drain(self, queue: str) -> list[Delivery]:
        """Consume and ack all that is ready in a queue."""
        consumer = await self.consume(queue, prefetch=1, tag=f"drain-{queue}")
        found = []
        while (delivery := await self.next_or_none(consumer)) is not None:
            found.append(delivery)
            await delivery.ack()
        await consumer.cancel()
        return found

    async def drain_texts(self, queue: str) -> list[str]:
        return [text(delivery) for delivery in await self.drain(queue)]


async def receive(consumer: Consumer) -> Delivery:
    """The next delivery, within reasonable time."""
    async with asyncio.timeout(PATIENCE_S):
        return await anext(consumer)


async def receive_texts(consumer: Consumer, count: int, *, ack: bool = True) -> list[str]:
    texts = []
    for _ in range(count):
        delivery = await receive(consumer)
        texts.append(text(delivery))
        if ack:
            await delivery.ack()
    return texts
