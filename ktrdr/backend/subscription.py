"""Reading a queue for ever: nothing that a message holds, or that fails on the way, ends it."""

import asyncio
import random
from collections.abc import Awaitable, Callable

import structlog

from ktrdr.backend.outage import Outage
from ktrdr.backend.settling import Handle, Settler, settled
from ktrdr.backend.sources import Source
from ktrdr.bus.port import Bus, Consumer, Delivery
from ktrdr.bus.topology import shared_topology
from ktrdr.clock import Clock
from ktrdr.errors import (
    BusClosedError,
    BusError,
    BusUnavailableError,
    CodecError,
    KtrdrError,
    UndecodableError,
)
from ktrdr.events import Envelope, decode
from ktrdr.events.message import Message

_log = structlog.get_logger()

# An agent reports progress every 50 ms or so: between two reports the queue counts as empty.
_IDLE_AFTER_S = 0.01
_FIRST_ABSENCE_S = 0.1
_LONGEST_ABSENCE_S = 5.0
_MAX_EVENT_ID_CHARACTERS = 64


class Subscription:
    """One queue, read by one handler; subscribed again, after the topology, whenever it is lost.

    Delivery: at least once, if the source is acknowledged, which it is after the handler has returned; while
    something is in its way that may pass, see `Settler`. What cannot be read, what the handler refuses, or
    what fails in a way that nobody foresaw, is dead-lettered with the reason. Events of one operation are
    handled in their order, those of several side by side.

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
        rng: random.Random,
    ) -> None:
        self._bus = bus
        self._new_source = source
        self._source = source()
        self._prefetch = prefetch
        self._consumer_tag = consumer_tag
        self._clock = clock
        self._settler = Settler(
            queue=lambda: self._source.queue,
            handle=handle,
            on_obstacle=on_obstacle,
            pause=pause,
            outage=outage,
            stand_back=self._stand_back,
            clock=clock,
        )
        self._on_return = on_return
        self._shortcut = shortcut
        self._excuse = excuse
        self._rng = rng
        self._consumer: Consumer | None = None
        self._until: Callable[[], Awaitable[None]] | None = None
        self._waiting_since: float | None = None
        self._last_idle = float("-inf")
        self._in_hand: set[asyncio.Task[None]] = set()
        self._last_of: dict[str, asyncio.Task[None]] = {}
        self.reading = asyncio.Event()
        """Set while the queue is being read."""
        self.deaf_since = float("-inf")
        """Since when it is not, if it is not, in monotonic seconds."""
        self.stood_back_for: str | None = None
        """What is in the way of what is in the queue, so that it is not even read; None: nothing."""

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
                if self._until is not None:
                    await self._until()
                    self._until = self.stood_back_for = None
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
                    reason = self.stood_back_for or "the consumer was lost"
                    if self._clock.monotonic() - began > _LONGEST_ABSENCE_S:
                        absence_s, told = _FIRST_ABSENCE_S, ""
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
            await settled(consumer.cancel())

    async def _begin(self, delivery: Delivery, group: asyncio.TaskGroup) -> None:
        if self._shortcut is not None and self._shortcut(delivery.message):
            await settled(delivery.ack())
            return
        try:
            envelope = decode(delivery.message)
            if len(envelope.event_id) > _MAX_EVENT_ID_CHARACTERS:
                raise UndecodableError("Its message id is not an event id.")
        except CodecError as error:
            if self._excuse is not None and self._excuse(delivery.message):
                await settled(delivery.ack())
            else:
                await self._settler.reject(delivery, str(error))
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
        await self._settler.settle(delivery, envelope)

    async def _stand_back(self, reason: str, until: Callable[[], Awaitable[None]]) -> bool:
        if not self._source.acknowledge:
            return False
        if self._until is None:
            self._until, self.stood_back_for = until, reason
        if self._consumer is not None:
            # First, or what is given back comes again at once.
            await settled(self._consumer.cancel())
        return True
