"""Reading a queue for ever: nothing that a message holds, or that fails on the way, ends it."""

import asyncio
import random
from collections.abc import Awaitable, Callable

import structlog

from ktrdr.backend.outage import Outage
from ktrdr.backend.sources import Source
from ktrdr.bus.port import Bus, Consumer, Delivery
from ktrdr.bus.topology import shared_topology
from ktrdr.clock import Clock
from ktrdr.errors import (
    BlobError,
    BusClosedError,
    BusError,
    BusUnavailableError,
    CodecError,
    DatabaseUnavailableError,
    KtrdrError,
    ModelError,
    StorageFullError,
    UndecodableError,
)
from ktrdr.events import AgentPresence, ClaimEvent, Envelope, OperationEvent, decode
from ktrdr.events.message import Message

_log = structlog.get_logger()

Handle = Callable[[Envelope], Awaitable[None]]

_OBSTACLES = (StorageFullError, DatabaseUnavailableError, BlobError, ModelError)
# An agent reports progress every 50 ms or so: between two reports the queue counts as empty.
_IDLE_AFTER_S = 0.01
_FIRST_PAUSE_S = 0.5
_LONGEST_PAUSE_S = 10.0
_FIRST_ABSENCE_S = 0.1
_LONGEST_ABSENCE_S = 5.0
_MAX_EVENT_ID_CHARACTERS = 64
_NO_DATABASE = "the database is away; others may take what waits for it"
_HOLD_S = 20 * 60.0
"""RabbitMQ ends consumers that hold a message for 30 minutes."""


class RefusedError(Exception):
    """A message is to be dead-lettered, with these words."""


class Subscription:
    """One queue, read by one handler; subscribed again, after the topology, whenever it is lost.

    Delivery: at least once, if the source is acknowledged, which it is after the handler has returned. While
    something is in its way that may pass (a full disk, a locked database) the delivery stays in hand and is
    tried again: a queue counts how often a message is given back. When the database stays away, what has to
    be acknowledged is given back all the same, once, for other backends to take; nothing more is read until
    the database is back, so that however long that takes counts as one. What cannot be read, what the handler
    refuses, or what fails in a way that nobody foresaw, is dead-lettered with the reason. Events of one
    operation are handled in their order, those of several side by side.

    Args:
        bus: where the queue is.
        source: says what to read; asked again if that cannot be declared.
        prefetch: how many deliveries may be in hand.
        consumer_tag: the reader's name, for the broker's operator.
        handle: does the work.
        on_obstacle: told what is in the way of an event, each time; whether to try again is not its choice.
        pause: waits so many seconds before an event is tried again, or less if that changes its prospects.
        outage: whether the database is there.
        clock: for durations.
        on_return: told each time that the queue is read again after it could not be.
        shortcut: handles a message at sight, if it can; it is acknowledged then.
        excuse: takes note of a message that cannot be read, if it knows why; it is acknowledged then.
        rng: spreads the pauses between two tries to subscribe.
    """

    def __init__(
        self,
        bus: Bus,
        source: Callable[[], Source],
        *,
        prefetch: int,
        consumer_tag: str,
        handle: Handle,
        on_obstacle: Callable[[Envelope, KtrdrError], Awaitable[None]],
        pause: Callable[[Envelope, float], Awaitable[None]],
        outage: Outage,
        clock: Clock,
        on_return: Callable[[], None] = lambda: None,
        shortcut: Callable[[Message], bool] | None = None,
        excuse: Callable[[Message], bool] | None = None,
        rng: random.Random | None = None,
    ) -> None:
        self._bus = bus
        self._new_source = source
        self._source = source()
        self._prefetch = prefetch
        self._consumer_tag = consumer_tag
        self._handle = handle
        self._on_obstacle = on_obstacle
        self._pause = pause
        self._outage = outage
        self._clock = clock
        self._on_return = on_return
        self._shortcut = shortcut
        self._excuse = excuse
        self._rng = rng or random.Random()  # noqa: S311  # it only spreads pauses
        self._consumer: Consumer | None = None
        self._waits_for_database = False
        self._waiting_since: float | None = None
        self._last_idle = float("-inf")
        self._in_hand: set[asyncio.Task[None]] = set()
        self._last_of: dict[str, asyncio.Task[None]] = {}
        self.reading = asyncio.Event()
        """Set while the queue is being read."""
        self.deaf_since = float("-inf")
        """Since when it is not, if it is not, in monotonic seconds."""

    @property
    def listening(self) -> bool:
        """Whether the queue is being read."""
        return self.reading.is_set()

    def last_idle(self) -> float:
        """Return when everything was last read and done, in monotonic seconds; now, if it is.

        While the queue is not being read, nobody knows what is in it: that is not idle.
        """
        now = self._clock.monotonic()
        if self.idle and self._waiting_since is not None and now - self._waiting_since >= _IDLE_AFTER_S:
            self._last_idle = now
        return self._last_idle

    @property
    def idle(self) -> bool:
        """Whether the queue is empty and nothing is in hand."""
        return self._waiting_since is not None and not self._in_hand

    async def declare(self) -> None:
        """Declare what is this reader's own, after the shared topology; what is published then, waits for it.

        Raises:
            BusError: as for `Bus.declare`.
        """
        try:
            await self._bus.declare(self._source.topology)
        except BusUnavailableError:
            raise
        except BusError:
            # The broker takes a connection that we have lost for alive, or its node is gone.
            self._source = self._new_source()
            await self._bus.declare(self._source.topology)

    async def run(self) -> None:
        """Read for ever.

        Raises:
            BusClosedError: the bus was closed.
        """
        absence_s = _FIRST_ABSENCE_S
        self.deaf_since = self._clock.monotonic()
        was_lost = False
        told = ""
        async with asyncio.TaskGroup() as group:
            while True:
                if self._waits_for_database:
                    await self._outage.wait_for_end()
                    self._waits_for_database = False
                try:
                    await self._bus.declare(shared_topology())
                    await self.declare()
                    consumer = await self._bus.consume(
                        self._source.queue,
                        prefetch=self._prefetch,
                        consumer_tag=self._consumer_tag,
                        acknowledge=self._source.acknowledge,
                    )
                except BusClosedError:
                    raise
                except BusError as error:
                    reason = str(error)
                else:
                    self.reading.set()
                    began = self._clock.monotonic()
                    if was_lost:
                        _log.info("listening again", queue=self._source.queue)
                        self._on_return()
                    await self._read(consumer, group)
                    reason = _NO_DATABASE if self._waits_for_database else "the consumer was lost"
                    if self._clock.monotonic() - began > _LONGEST_ABSENCE_S:
                        absence_s = _FIRST_ABSENCE_S
                was_lost = True
                pause_s = absence_s * self._rng.uniform(0.75, 1.25)
                # Once for each reason: a broker may be away for hours.
                log = _log.debug if reason == told else _log.warning
                queue = self._source.queue
                log("not listening", queue=queue, reason=reason, again_in_s=round(pause_s, 2))
                told = reason
                await self._clock.sleep(pause_s)
                absence_s = min(2 * absence_s, _LONGEST_ABSENCE_S)

    async def _read(self, consumer: Consumer, group: asyncio.TaskGroup) -> None:
        self._consumer = consumer
        try:
            self._waiting_since = self._clock.monotonic()
            async for delivery in consumer:
                self.last_idle()
                self._waiting_since = None
                if len(self._in_hand) >= self._prefetch:
                    # The broker sends on what need not be acknowledged.
                    await asyncio.wait(self._in_hand, return_when=asyncio.FIRST_COMPLETED)
                await self._begin(delivery, group)
                self._waiting_since = self._clock.monotonic()
        except BusClosedError:
            raise
        except BusError as error:
            _log.debug("consumer failed", queue=self._source.queue, reason=str(error))
        finally:
            self._consumer = None
            self.reading.clear()
            self.deaf_since = self._clock.monotonic()
            self._waiting_since = None
            await _settled(consumer.cancel())

    async def _begin(self, delivery: Delivery, group: asyncio.TaskGroup) -> None:
        if self._shortcut is not None and self._shortcut(delivery.message):
            await _settled(delivery.ack())
            return
        try:
            envelope = decode(delivery.message)
            if len(envelope.event_id) > _MAX_EVENT_ID_CHARACTERS:
                raise UndecodableError("Its message id is not an event id.")
        except CodecError as error:
            if self._excuse is not None and self._excuse(delivery.message):
                await _settled(delivery.ack())
            else:
                await self._reject(delivery, str(error))
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
        structlog.contextvars.bind_contextvars(**_about(envelope))  # in the context of this task
        if previous is not None:
            await asyncio.wait((previous,))
        give_up_at = self._clock.monotonic() + _HOLD_S
        pause_s = _FIRST_PAUSE_S
        while True:
            try:
                await self._handle(envelope)
            except _OBSTACLES as error:
                await self._on_obstacle(envelope, error)
                is_out = isinstance(error, DatabaseUnavailableError) and await self._is_out()
                # What has come back before is held for longer: the queue counts.
                if self._clock.monotonic() >= give_up_at or (is_out and not delivery.redelivered):
                    await _settled(delivery.nack())
                    return
                await self._pause(envelope, pause_s)
                pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
            except RefusedError as error:
                await self._reject(delivery, str(error))
                return
            except Exception as error:
                _log.exception("event could not be handled", type=envelope.event.type_name())
                await _settled(delivery.reject(f"defect: {type(error).__name__}: {error}"))
                return
            else:
                self._outage.worked()
                await _settled(delivery.ack())
                return

    async def _is_out(self) -> bool:
        """Return whether the database has been away for a while; nothing more is read then."""
        self._outage.failed()
        if not self._source.acknowledge or not self._outage.lasts:
            return False
        self._waits_for_database = True
        if self._consumer is not None:
            # First, or what is given back comes again at once.
            await _settled(self._consumer.cancel())
        return True

    async def _reject(self, delivery: Delivery, reason: str) -> None:
        message = delivery.message
        _log.warning(
            "message rejected",
            queue=self._source.queue,
            type=message.type,
            sender=message.app_id,
            reason=reason,
        )
        await _settled(delivery.reject(reason))


def _about(envelope: Envelope) -> dict[str, object]:
    """Return what each line is about that is logged while an event is handled."""
    event = envelope.event
    about: dict[str, object] = {}
    if isinstance(event, OperationEvent):
        about |= {"operation_id": event.operation_id, "attempt": event.attempt}
    if isinstance(event, ClaimEvent | AgentPresence):
        about["agent"] = event.agent_id
    return about


async def _settled(settling: Awaitable[None]) -> None:
    try:
        await settling
    except BusError as error:
        # The connection is gone, and the delivery with it: it comes again, and the inbox knows it.
        _log.warning("delivery not settled, will come again", error=str(error))
