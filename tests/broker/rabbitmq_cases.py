"""Buses on a real RabbitMQ, under names of the test's own, for tests of what may go wrong with them."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiormq
import pytest

from ktrdr.bus.rabbitmq import RabbitMQBus
from ktrdr.bus.rabbitmq_arguments import wire_name
from ktrdr.bus.rabbitmq_connection import ConnectionLimits
from ktrdr.bus.topology import Binding, Exchange, ExchangeKind, Queue, QueueKind, Topology
from ktrdr.events.message import Message
from tests.broker.node import PrivateNode

PATIENCE_S = 60.0
WORK, IN, DEAD, GRAVES = "ktrdr.work", "ktrdr.in", "ktrdr.dead", "ktrdr.graves"
LIMITS = ConnectionLimits(heartbeat_s=1, connect_s=2.0, request_s=5.0, longest_pause_s=0.5)

WORK_TOPOLOGY = Topology(
    (Exchange(IN, ExchangeKind.DIRECT),),
    (Queue(WORK, delivery_limit=100),),
    (Binding(IN, WORK, WORK),),
)
GRAVEYARD = Topology(
    (Exchange(DEAD, ExchangeKind.TOPIC),), (Queue(GRAVES, QueueKind.CLASSIC),), (Binding(DEAD, GRAVES, "#"),)
)


class Scratch:
    """Makes buses whose names on the broker no other test uses."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.prefix = f"test-{secrets.token_hex(6)}"
        self._buses: list[RabbitMQBus] = []

    def bus(self, url: str | None = None, *, name: str = "test", **options: Any) -> RabbitMQBus:
        options = {"prefix": self.prefix, "limits": LIMITS, **options}
        self._buses.append(RabbitMQBus(url or self.url, name=name, **options))
        return self._buses[-1]

    async def working_bus(self, url: str | None = None, **options: Any) -> RabbitMQBus:
        """A bus that has declared the queue `WORK`, to which `IN` routes its name."""
        bus = self.bus(url, **options)
        await bus.declare(WORK_TOPOLOGY)
        return bus

    def wire(self, name: str) -> str:
        return wire_name(name, self.prefix)

    async def close(self) -> None:
        for bus in self._buses:
            await bus.close()


@asynccontextmanager
async def scratch_on(node: PrivateNode) -> AsyncIterator[Scratch]:
    """Names on a node, and buses, that are gone afterwards."""
    scratch = Scratch(node.amqp_url())
    yield scratch
    await scratch.close()
    if not node.is_running:
        await asyncio.to_thread(node.start)
    for queue in await asyncio.to_thread(node.management.queues):
        if queue["name"].startswith(f"{scratch.prefix}."):
            await asyncio.to_thread(node.management.delete_queue, queue["name"])
    for exchange in await asyncio.to_thread(node.management.exchanges):
        if exchange["name"].startswith(f"{scratch.prefix}."):
            await asyncio.to_thread(node.management.delete_exchange, exchange["name"])


@asynccontextmanager
async def raw_channel(url: str) -> AsyncIterator[aiormq.Channel]:
    """A channel without any of our own code."""
    async with aiormq.connect(url) as connection:
        channel = await connection.channel()
        assert isinstance(channel, aiormq.Channel)
        yield channel


def message(text: str, body: bytes = b"", **properties: Any) -> Message:
    return Message(body=body or text.encode(), message_id=text, type="test.message.v1", **properties)


async def publish(bus: RabbitMQBus, text: str, **options: Any) -> None:
    """Publish a message whose id and body are that text, to the queue `WORK`."""
    options = {"exchange": IN, "routing_key": WORK, "mandatory": True, "timeout_s": PATIENCE_S, **options}
    await bus.publish(message(text, options.pop("body", b"")), **options)


async def drain(bus: RabbitMQBus, queue: str = WORK) -> list[str]:
    """Take all that is ready in a queue."""
    texts = []
    while (delivery := await bus.get(queue)) is not None:
        texts.append(delivery.message.message_id)
        await delivery.ack()
    return texts


async def eventually(condition: Callable[[], object], otherwise: str, within_s: float = PATIENCE_S) -> None:
    """Wait for something to come true."""
    end = asyncio.get_running_loop().time() + within_s
    while not condition():
        if asyncio.get_running_loop().time() > end:
            pytest.fail(f"not within {within_s:g} s: {otherwise}", pytrace=False)
        await asyncio.sleep(0.005)
