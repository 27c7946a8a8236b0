"""Reading a queue for ever: nothing that a message holds, or that fails on the way, ends it."""

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from ktrdr.bus.port import Bus, Delivery
from ktrdr.clock import Clock
from ktrdr.errors import (
    BlobError,
    BusError,
    BusUnavailableError,
    CodecError,
    DatabaseUnavailableError,
    KtrdrError,
    ModelError,
    StorageFullError,
    UndecodableError,
)
from ktrdr.events import Envelope, decode

_log = structlog.get_logger()

Handle = Callable[[Envelope], Awaitable[None]]

_OBSTACLES = (StorageFullError, DatabaseUnavailableError, BlobError, ModelError)
# An agent reports progress every 50 ms: between two reports the queue counts as empty.
_IDLE_AFTER_S = 0.01
_FIRST_PAUSE_S = 0.5
_LONGEST_PAUSE_S = 10.0
_MAX_EVENT_ID_CHARACTERS = 64
_HOLD_S = 20 * 60.0
"""RabbitMQ ends consumers that hold a message for 30 minutes."""


class Subscription:
    """One queue, read by one handler.

    Delivery: at least once. A delivery is acknowledged after the handler has returned. While something is in
    its way that may pass (a full disk, a locked database) the delivery stays in hand and is tried again: a
    queue counts how often a message is given back. What cannot be read, or fails in a way that nobody
    foresaw, is dead-lettered with the reason. Events of one operation are handled in their order, those of
    several side by side.

    Args:
        bus: where the queue is.
        queue: its name.
        prefetch: how many deliveries may be in hand.
        consumer_tag: the reader's name, for the broker's operator.
        handle: does the work.
        on_obstacle: told what is in the way of an event, each time; whether to try again is not its choice.
        pause: waits so many seconds before an event is tried again, or less if that changes its prospects.
        clock: for durations.
    """

    def __init__(
        self,
        bus: Bus,
        queue: str,
        *,
        prefetch: int,
        consumer_tag: str,
        handle: Handle,
        on_obstacle: Callable[[Envelope, KtrdrError], Awaitable[None]],
        pause: Callable[[Envelope, float], Awaitable[None]],
        clock: Clock,
    ) -> None:
        self._bus = bus
        self._queue = queue
        self._prefetch = prefetch
        self._consumer_tag = consumer_tag
        self._handle = handle
        self._on_obstacle = on_obstacle
        self._pause = pause
        self._clock = clock
        self._waiting_since: float | None = None
        self._last_idle = float("-inf")
        self._in_hand: set[asyncio.Task[None]] = set()
        self._last_of: dict[str, asyncio.Task[None]] = {}

    def last_idle(self) -> float:
        """Return when everything was last read and done, in monotonic seconds; now, if it is."""
        now = self._clock.monotonic()
        if self.idle and self._waiting_since is not None and now - self._waiting_since >= _IDLE_AFTER_S:
            self._last_idle = now
        return self._last_idle

    @property
    def idle(self) -> bool:
        """Whether the queue is empty and nothing is in hand."""
        return self._waiting_since is not None and not self._in_hand

    async def run(self) -> None:
        """Read for ever.

        Raises:
            BusUnavailableError: the bus was closed.
        """
        consumer = await self._bus.consume(
            self._queue, prefetch=self._prefetch, consumer_tag=self._consumer_tag
        )
        try:
            async with asyncio.TaskGroup() as group:
                self._waiting_since = self._clock.monotonic()
                async for delivery in consumer:
                    self.last_idle()
                    self._waiting_since = None
                    await self._begin(delivery, group)
                    self._waiting_since = self._clock.monotonic()
        finally:
            await consumer.cancel()
        raise BusUnavailableError(f"The bus was closed while {self._queue} was being read.")

    async def _begin(self, delivery: Delivery, group: asyncio.TaskGroup) -> None:
        try:
            envelope = decode(delivery.message)
            if len(envelope.event_id) > _MAX_EVENT_ID_CHARACTERS:
                raise UndecodableError("Its message id is not an event id.")
        except CodecError as error:
            reason = str(error)
            _log.warning("message rejected", queue=self._queue, type=delivery.message.type, reason=reason)
            await _settled(delivery.reject(reason))
            return
        key = envelope.operation_id or envelope.sender
        task = group.create_task(self._settle(delivery, envelope, self._last_of.get(key)))
        self._last_of[key] = task
        self._in_hand.add(task)
        task.add_done_callback(lambda done: self._finished(key, done))

    def _finished(self, key: str, task: asyncio.Task[None]) -> None:
        self._in_hand.discard(task)
        if self._last_of.get(key) is task:
            del self._last_of[key]

    async def _settle(
        self, delivery: Delivery, envelope: Envelope, previous: asyncio.Task[None] | None
    ) -> None:
        if previous is not None:
            await asyncio.wait((previous,))
        give_up_at = self._clock.monotonic() + _HOLD_S
        pause_s = _FIRST_PAUSE_S
        while True:
            try:
                await self._handle(envelope)
            except _OBSTACLES as error:
                await self._on_obstacle(envelope, error)
                if self._clock.monotonic() >= give_up_at:
                    await _settled(delivery.nack())
                    return
                await self._pause(envelope, pause_s)
                pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
            except Exception as error:
                _log.exception("event could not be handled", type=envelope.event.type_name())
                await _settled(delivery.reject(f"defect: {type(error).__name__}: {error}"))
                return
            else:
                await _settled(delivery.ack())
                return


async def _settled(settling: Awaitable[None]) -> None:
    try:
        await settling
    except BusError as error:
        # The connection is gone, and the delivery with it: it comes again, and the inbox knows it.
        _log.warning("delivery not settled, will come again", error=str(error))
