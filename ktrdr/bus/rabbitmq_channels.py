"""Channels of the consuming connection, used again and again: to open one takes as long as to subscribe."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress

from aiormq import Channel
from pamqp.commands import Basic

from ktrdr.bus.rabbitmq_connection import RabbitMQConnection
from ktrdr.bus.rabbitmq_errors import LIBRARY_ERRORS, typed_errors
from ktrdr.errors import BusUnavailableError

_KEPT = 8


class PooledChannel:
    """A channel that one consumer, or one question, has at a time."""

    def __init__(self, channel: Channel) -> None:
        self.amqp = channel
        self.prefetch: int | None = None
        """What the broker was told last."""
        self.on_lost: Callable[[str], None] | None = None
        """Told, while someone consumes, when the channel or the consumer is gone, and why."""
        channel.on_consumer_cancel_callbacks.add(self._cancelled)
        channel.closing.add_done_callback(self._closed)

    @property
    def is_open(self) -> bool:
        """Whether it can be used, as far as is known."""
        return not self.amqp.is_closed

    def _cancelled(self, frame: Basic.Cancel) -> None:
        self._lose("the broker has cancelled it")

    def _closed(self, closing: asyncio.Future[object]) -> None:
        error = None if closing.cancelled() else closing.exception()
        self._lose(str(error) or "the channel was closed")

    def _lose(self, reason: str) -> None:
        if (on_lost := self.on_lost) is not None:
            self.on_lost = None
            on_lost(reason)


class ChannelPool:
    """Hands out channels, and keeps a few that were handed back."""

    def __init__(self, connection: RabbitMQConnection) -> None:
        self._connection = connection
        self._idle: list[PooledChannel] = []
        self._background: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def asking(self, doing: str) -> AsyncIterator[PooledChannel]:
        """Take a channel for some questions, within the time for one, and hand it back.

        Raises:
            BusError: the broker's answer, which ends the channel; or there is no connection.
        """
        async with self.borrowing(doing) as channel:
            yield channel
            self.hand_back(channel)

    @asynccontextmanager
    async def borrowing(
        self, doing: str, channel: PooledChannel | None = None
    ) -> AsyncIterator[PooledChannel]:
        """As `asking`, on a channel that is had already or another; if nothing fails, the caller keeps it."""
        with typed_errors(doing):
            try:
                async with asyncio.timeout(self._connection.limits.request_s):
                    channel = channel or await self.take()
                    try:
                        yield channel
                    except BaseException:
                        self.discard(channel)
                        raise
            except TimeoutError as error:
                raise self._unanswered(doing) from error

    async def take(self) -> PooledChannel:
        """Return an open channel, once there is a connection."""
        while self._idle:
            channel = self._idle.pop()
            if channel.is_open:
                return channel
        return PooledChannel(await self._connection.open_channel(confirms=False))

    def hand_back(self, channel: PooledChannel) -> None:
        """Let others use a channel on which nothing is consumed, and nothing unsettled."""
        channel.on_lost = None
        if channel.is_open and len(self._idle) < _KEPT:
            self._idle.append(channel)
        else:
            self.discard(channel)

    def discard(self, channel: PooledChannel) -> None:
        """Close a channel in the background: what is unsettled on it goes back to its queue."""
        channel.on_lost = None
        if channel.is_open:
            self.in_background(self._close(channel))

    def in_background(self, work: Coroutine[object, object, None]) -> asyncio.Task[None]:
        """Begin some work on channels, which ends at the latest when the connection is closed."""
        task = asyncio.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)
        return task

    async def close(self) -> None:
        """Wait for what goes on in the background, after the connection was closed."""
        if self._background:
            await asyncio.wait(self._background)

    async def _close(self, channel: PooledChannel) -> None:
        with suppress(*LIBRARY_ERRORS, TimeoutError):
            async with asyncio.timeout(self._connection.limits.request_s):
                await channel.amqp.close()

    def _unanswered(self, doing: str) -> BusUnavailableError:
        if not self._connection.is_connected:
            return self._connection.unavailable()
        return BusUnavailableError(
            f"The broker has not answered within {self._connection.limits.request_s:g} s while {doing}."
        )
