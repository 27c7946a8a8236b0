"""A client of the broker that means no good: it repeats what others said, and says what nobody should."""

import asyncio
import random
import threading
from concurrent.futures import Future
from dataclasses import replace
from typing import Self

from ktrdr.bus.port import Consumer
from ktrdr.bus.rabbitmq import RabbitMQBus
from ktrdr.bus.topology import CONTROL, EVENTS, PRESENCE, REQUESTS, Binding, Queue, QueueKind, Topology
from ktrdr.errors import BusError
from ktrdr.events.message import Message

_KEPT = 400
_TIMEOUT_S = 5.0
_PAUSE_S = 0.2

_Said = tuple[str, str, Message]
"""Exchange, routing key and message."""

_POISON: tuple[_Said, ...] = (
    (REQUESTS, "any", Message(b"", "", type="ktrdr.training.requested.v1")),
    (REQUESTS, "any", Message(b"\xc1" * 40, "", type="ktrdr.training.requested.v1")),
    (REQUESTS, "any", Message(b"\x80", "", type="of.somebody.else")),
    (EVENTS, "training.op-x.accepted", Message(b"\x80", "", type="ktrdr.training.accepted.v1")),
    (EVENTS, "training.op-x.model_ready", Message(b"{}", "", type="ktrdr.training.model_ready.v7")),
    (
        EVENTS,
        "training.op-x.failed",
        Message(b"\x28\xb5\x2f\xfd", "", type="ktrdr.training.failed.v1", content_encoding="zstd"),
    ),
    (EVENTS, "training.op-x.progress", Message(b"\xff", "", type="ktrdr.training.progress.v1")),
    (PRESENCE, "", Message(b"not msgpack", "", type="ktrdr.agent.presence.v1")),
)
"""What nobody can read."""


class Stranger:
    """Listens to requests, events and orders on a broker, in a thread of its own.

    A context manager. It listens again by itself after the broker was away.
    """

    def __init__(self, url: str) -> None:
        self.repeated = 0
        """How many messages were published again."""
        self.poisoned: set[str] = set()
        """The ids of the poison that the broker has confirmed, and may not drop."""
        self.tried: set[str] = set()
        """The ids of the poison that it may have."""
        self._url = url
        self._heard: list[_Said] = []
        self._under_way: list[Future[None]] = []
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="stranger", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self._listening = asyncio.run_coroutine_threadsafe(self._listen(), self._loop)
        return self

    def __exit__(self, *_: object) -> None:
        self._listening.cancel()
        asyncio.run_coroutine_threadsafe(self._bus.close(), self._loop).result(_TIMEOUT_S)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def repeat(self, count: int, rng: random.Random) -> None:
        """Publish so many of what was heard again, in any order; what the broker does not take is left."""
        self._under_way.append(asyncio.run_coroutine_threadsafe(self._repeat(count, rng), self._loop))

    def poison(self, rng: random.Random) -> None:
        """Publish something that nobody can read."""
        exchange, key, message = rng.choice(_POISON)
        poisoning = self._poison(exchange, key, message)
        self._under_way.append(asyncio.run_coroutine_threadsafe(poisoning, self._loop))

    def finish(self) -> None:
        """Return when nothing more comes of what it was told."""
        for future in self._under_way:
            future.result(60.0)

    async def _repeat(self, count: int, rng: random.Random) -> None:
        for exchange, key, message in rng.sample(self._heard, min(count, len(self._heard))):
            try:
                await self._say(exchange, key, message)
            except BusError:
                return
            self.repeated += 1

    async def _poison(self, exchange: str, key: str, message: Message) -> None:
        message_id = f"poison-{len(self.tried) + 1}"
        self.tried.add(message_id)
        try:
            await self._say(exchange, key, replace(message, message_id=message_id))
        except BusError:
            return
        if exchange != PRESENCE and not key.endswith(".progress"):
            self.poisoned.add(message_id)

    async def _say(self, exchange: str, key: str, message: Message) -> None:
        await self._bus.publish(
            message, exchange=exchange, routing_key=key, mandatory=False, timeout_s=_TIMEOUT_S
        )

    async def _listen(self) -> None:
        self._bus = RabbitMQBus(self._url, name="stranger")
        async with asyncio.TaskGroup() as all_:
            for exchange, key in ((REQUESTS, "any"), (EVENTS, "#"), (CONTROL, "#")):
                all_.create_task(self._keep_hearing(exchange, key))

    async def _keep_hearing(self, exchange: str, key: str) -> None:
        while True:
            try:
                consumer = await self._consumer(exchange, key)
                try:
                    await self._hear(exchange, consumer)
                finally:
                    await consumer.cancel()
            except BusError:
                pass  # the broker is away, or has not noticed yet that we were
            await asyncio.sleep(_PAUSE_S)

    async def _consumer(self, exchange: str, key: str) -> Consumer:
        queue = Queue(f"stranger.{exchange}", QueueKind.CLASSIC, exclusive=True)
        await self._bus.declare(Topology(queues=(queue,), bindings=(Binding(exchange, queue.name, key),)))
        return await self._bus.consume(queue.name, prefetch=100, consumer_tag=queue.name)

    async def _hear(self, exchange: str, consumer: Consumer) -> None:
        async for delivery in consumer:
            message = delivery.message
            if message.message_id not in self.tried:
                self._heard.append((exchange, _routing_key(exchange, message), message))
                del self._heard[:-_KEPT]
            await delivery.ack()


def _routing_key(exchange: str, message: Message) -> str:
    if exchange == REQUESTS:
        return "any"
    kind = message.type.split(".")[-2]
    return f"training.{message.correlation_id}.{kind}"
