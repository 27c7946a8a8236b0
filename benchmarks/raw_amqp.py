"""aio-pika as one would use it by hand for the guarantees that the bus gives."""

import asyncio
from collections.abc import Iterable
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Self

import aio_pika
from aio_pika.abc import AbstractChannel, AbstractExchange, AbstractQueue, AbstractRobustConnection

from ktrdr.events.message import Message

_OUTSTANDING = 256


class RawPublisher:
    """Persistent, mandatory, confirmed, with a time limit, and with a bound of what is outstanding."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._stack = AsyncExitStack()
        self._outstanding = asyncio.Semaphore(_OUTSTANDING)
        self._exchanges: dict[str, AbstractExchange] = {}

    async def __aenter__(self) -> Self:
        self.connection: AbstractRobustConnection = await self._stack.enter_async_context(
            await aio_pika.connect_robust(self._url)
        )
        self._channel: AbstractChannel = await self.connection.channel(
            publisher_confirms=True, on_return_raises=True
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    async def publish(self, message: Message, *, exchange: str, routing_key: str, timeout_s: float) -> None:
        target = self._exchanges.get(exchange)
        if target is None:
            target = self._channel.default_exchange
            if exchange:
                target = await self._channel.get_exchange(exchange, ensure=False)
            self._exchanges[exchange] = target
        async with self._outstanding:
            await target.publish(
                aio_pika.Message(
                    message.body,
                    headers=dict(message.headers),
                    message_id=message.message_id,
                    type=message.type,
                    correlation_id=message.correlation_id,
                    app_id=message.app_id,
                    timestamp=message.timestamp,
                    content_type=message.content_type,
                    content_encoding=message.content_encoding,
                    delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
                ),
                routing_key=routing_key,
                mandatory=True,
                timeout=timeout_s,
            )

    async def queue_with_exchange(self, name: str) -> AbstractQueue:
        """Declare a quorum queue and a direct exchange of that name, bound under the key ``x``."""
        exchange = await self._channel.declare_exchange(name, aio_pika.ExchangeType.DIRECT, durable=True)
        queue = await self.queue(name)
        await queue.bind(exchange, "x")
        return queue

    async def queue(self, name: str) -> AbstractQueue:
        """Declare a quorum queue."""
        return await self._channel.declare_queue(name, durable=True, arguments={"x-queue-type": "quorum"})

    async def delete(self, name: str) -> None:
        """Delete the queue and the exchange of that name, where there are such."""
        await self._channel.queue_delete(name)
        await self._channel.exchange_delete(name)


async def delete(url: str, *, queues: Iterable[str], exchanges: Iterable[str] = ()) -> None:
    """Delete what a measurement has left on the broker; what is not there does not matter."""
    async with await aio_pika.connect(url) as connection:
        channel = await connection.channel()
        for queue in queues:
            await channel.queue_delete(queue)
        for exchange in exchanges:
            await channel.exchange_delete(exchange)
