"""A message to another process and back, with aio-pika by hand: what no way over this broker can be below."""

import asyncio
import secrets
import sys
import time
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Self

import aio_pika
from aio_pika.abc import AbstractIncomingMessage

from benchmarks.broker import READY, Processes
from benchmarks.raw_amqp import RawPublisher
from ktrdr.events.message import Message

_TIMEOUT_S = 10.0
_BODY = bytes(300)


class Pings:
    """Sends pings, one at a time, to an echo in another process."""

    def __init__(self, url: str, processes: Processes) -> None:
        self.seconds: list[float] = []
        """Of each way there and back."""
        token = secrets.token_hex(4)
        self._url, self._processes = url, processes
        self._there, self._back = f"bench-there-{token}", f"bench-back-{token}"
        self._stack = AsyncExitStack()
        self._returned = asyncio.Event()

    async def __aenter__(self) -> Self:
        self._publisher = await self._stack.enter_async_context(RawPublisher(self._url))
        connection = await self._stack.enter_async_context(await aio_pika.connect_robust(self._url))
        for name in (self._there, self._back):
            await self._publisher.queue(name)
            self._stack.push_async_callback(self._publisher.delete, name)
        echo = self._processes.python("-m", "benchmarks.ping", self._url, self._there, self._back)
        await asyncio.to_thread(self._processes.wait_ready, echo)
        channel = await connection.channel()
        await channel.set_qos(prefetch_count=1)
        await (await channel.get_queue(self._back)).consume(self._hear)
        await self.send()
        self.seconds.clear()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    async def send(self) -> None:
        self._returned.clear()
        started = time.perf_counter()
        await _send(self._publisher, self._there)
        await self._returned.wait()
        self.seconds.append(time.perf_counter() - started)

    async def _hear(self, delivery: AbstractIncomingMessage) -> None:
        self._returned.set()
        await delivery.ack()


async def _send(publisher: RawPublisher, queue: str) -> None:
    message = Message(_BODY, message_id=secrets.token_hex(8), type="ping")
    await publisher.publish(message, exchange="", routing_key=queue, timeout_s=_TIMEOUT_S)


async def _echo(url: str, there: str, back: str) -> None:
    async with RawPublisher(url) as publisher, await aio_pika.connect_robust(url) as connection:
        channel = await connection.channel()
        await channel.set_qos(prefetch_count=1)
        queue = await channel.get_queue(there)
        sys.stdout.write(f"{READY}\n")
        async with queue.iterator() as deliveries:
            async for delivery in deliveries:
                await _send(publisher, back)
                await delivery.ack()


if __name__ == "__main__":
    asyncio.run(_echo(*sys.argv[1:]))
