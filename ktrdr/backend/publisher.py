"""The outbox relay: publishes what transactions have decided, and marks it sent once it is confirmed.

Delivery: at least once. After a crash between the confirm and the mark an event goes out again under the same
event id, by which whoever heard it knows.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import structlog

from ktrdr.backend.outbox import Look, Outbox, UnsentEvent
from ktrdr.backend.records import OperationRecord, OutgoingEvent
from ktrdr.backend.waiting import Offload, wait_for
from ktrdr.bus.publisher import EventPublisher
from ktrdr.clock import Clock
from ktrdr.errors import BusError, CodecError, DatabaseUnavailableError, StorageFullError
from ktrdr.events import TrainingRequested

_log = structlog.get_logger()

_FIRST_PAUSE_S = 0.1
_LONGEST_PAUSE_S = 5.0
_OUTSTANDING = 16
_AT_HAND = 64
"""Events that are read ahead of their turn."""
_REMEMBERED = 256
"""Events that were done last: what is read, or handed over, may be one that was got the other way before."""


class OutboxRelay:
    """Publishes the events of one operation one after the other, and those of several side by side.

    What this process commits is handed to it; what others leave to it, and what has to wait, it reads.

    Args:
        outbox: what is to be published.
        publisher: how.
        clock: for pauses.
        offload: where the outbox is read.
        on_change: told of an operation that changed because its request went out, or could not.
        on_requested: told of each request that the broker has confirmed, and its event id.
    """

    def __init__(
        self,
        outbox: Outbox,
        publisher: EventPublisher,
        *,
        clock: Clock,
        offload: Offload,
        on_change: Callable[[OperationRecord], None],
        on_requested: Callable[[TrainingRequested, str], None],
    ) -> None:
        self._outbox = outbox
        self._publisher = publisher
        self._clock = clock
        self._offload = offload
        self._on_change = on_change
        self._on_requested = on_requested
        self._wake = asyncio.Event()
        self._schedule: dict[str, _Turn] = {}  # by event id, of what has to wait
        self._queues: dict[str, deque[OutgoingEvent]] = {}  # by operation, the first of each on its way
        self._in_hand: set[str] = set()  # event ids of all in the queues
        self._settled: dict[str, None] = {}  # event ids of the last that are done, oldest first
        self._has_more = False
        self._given_back = 0  # how often what was taken has to be read again
        self._outstanding = asyncio.Semaphore(_OUTSTANDING)
        self._publishing: asyncio.TaskGroup | None = None
        self.idle = asyncio.Event()
        """Set while nothing is due."""
        self.is_held_up = False
        """Whether the bus took nothing when it was last given anything."""

    def wake(self) -> None:
        """Read the outbox: there may be something in it that nobody publishes."""
        self.idle.clear()
        self._wake.set()

    async def run(self) -> None:
        """Publish for ever."""
        loop = asyncio.get_running_loop()

        def hand_over(events: list[OutgoingEvent]) -> None:
            loop.call_soon_threadsafe(self._take_committed, events)

        async with asyncio.TaskGroup() as group:
            self._publishing = group
            self._outbox.follow(hand_over)
            try:
                while True:
                    self._wake.clear()
                    next_in_s = await self._read()
                    await wait_for(self._wake, self._clock, next_in_s)
            finally:
                self._outbox.follow(None)
                self._publishing = None

    def _take_committed(self, events: list[OutgoingEvent]) -> None:
        """Take what was just committed; what has to wait, or is too much, is read when it is its turn."""
        if self._publishing is None:
            return  # it is for whoever starts next
        was_idle = self.idle.is_set()
        self.idle.clear()
        for outgoing in events:
            if outgoing.delay_s > 0 or self._has_more or len(self._in_hand) >= _AT_HAND:
                self._wake.set()
            else:
                self._take(outgoing)
        if was_idle:
            self._rest_if_done()  # all of it was known

    def _take(self, outgoing: OutgoingEvent) -> None:
        if outgoing.event_id in self._in_hand or outgoing.event_id in self._settled:
            return
        self._in_hand.add(outgoing.event_id)
        queue = self._queues.get(outgoing.operation_id)
        if queue is not None:
            queue.append(outgoing)
            return
        self._queues[outgoing.operation_id] = queue = deque((outgoing,))
        assert self._publishing is not None
        self._publishing.create_task(self._publish_in_order(outgoing.operation_id, queue))

    async def _read(self) -> float | None:
        """Take what is due of the outbox, and return in how many seconds the next is."""
        # One moment for all: what is not due then is waited for, however long the reading takes.
        now = self._clock.monotonic()
        gone = set(self._schedule)
        after = 0
        given_back = self._given_back
        # Whoever is done makes room for the next, and wakes us. What was given back comes before the rest.
        while (room := _AT_HAND - len(self._in_hand)) > 0:
            try:
                look = await self._offload(partial(self._look, now, after, room))
            except (DatabaseUnavailableError, StorageFullError) as error:
                _log.warning("outbox cannot be read", error=str(error))
                return _LONGEST_PAUSE_S
            if self._given_back != given_back:
                break
            for waiting in look.waiting:
                gone.discard(waiting.event_id)
                # What was marked sent while the outbox was being read may still be in what was read.
                if waiting.event_id not in self._settled:
                    # A pause counts from when this process first saw the event, whatever wall clocks say.
                    self._schedule.setdefault(waiting.event_id, _Turn(now + waiting.delay_s))
            for event in look.outgoing:
                self._take(event)
            self._has_more = not look.is_last
            if look.is_last:
                for event_id in gone:
                    self._schedule.pop(event_id, None)
                break
            after = look.waiting[-1].row_id
        else:
            self._has_more = True
        self._rest_if_done()
        return min((turn.at - now for turn in self._schedule.values() if turn.at > now), default=None)

    def _look(self, now: float, after: int, room: int) -> Look:
        return self._outbox.unsent(lambda waiting: self._is_due(waiting, now), after=after, at_most=room)

    def _is_due(self, waiting: UnsentEvent, now: float) -> bool:
        # One that waits does not hold up later ones of its operation: a request that a later decision
        # overtakes is withdrawn, so nothing that follows it depends on it.
        if waiting.event_id in self._in_hand:
            return False
        turn = self._schedule.get(waiting.event_id)
        return waiting.delay_s == 0 if turn is None else turn.at <= now

    def _rest_if_done(self) -> None:
        if not self._in_hand and not self._wake.is_set():
            self.idle.set()

    async def _publish_in_order(self, operation_id: str, queue: deque[OutgoingEvent]) -> None:
        try:
            while queue:
                async with self._outstanding:
                    went_out = await self._publish(queue[0])
                if not went_out:
                    # Those that follow are read again, and do not wait for it.
                    self._given_back += 1
                    self._wake.set()
                    return
                self._in_hand.discard(queue.popleft().event_id)
        finally:
            self._in_hand.difference_update(outgoing.event_id for outgoing in queue)
            del self._queues[operation_id]
            if self._has_more:
                self._wake.set()
            self._rest_if_done()

    async def _publish(self, outgoing: OutgoingEvent) -> bool:
        event = outgoing.event
        request = event if isinstance(event, TrainingRequested) else None
        try:
            # Nobody may find a request after its deadline: it is dispatched anew then.
            expiration_s = request.accept_within_s if request is not None else None
            await self._publisher.publish(
                event, event_id=outgoing.event_id, expiration_s=expiration_s, packed=outgoing.packed
            )
            self.is_held_up = False
            changed = await self._outbox.mark_sent(outgoing)
            if request is not None:
                self._on_requested(request, outgoing.event_id)
        except BusError as error:
            self.is_held_up = True
            self._pause(outgoing, error)
            await self._record_failure(outgoing, str(error))
            return False
        except CodecError as error:
            message = str(error)
            _log.error(
                "event can never be sent",
                type=event.type_name(),
                operation_id=outgoing.operation_id,
                attempt=outgoing.event.attempt,
                error=message,
            )
            changed = await self._outbox.set_aside(outgoing, message)
        except (DatabaseUnavailableError, StorageFullError) as error:
            self._pause(outgoing, error)
            return False
        self._settled[outgoing.event_id] = None
        self._schedule.pop(outgoing.event_id, None)
        if len(self._settled) > _REMEMBERED:
            del self._settled[next(iter(self._settled))]
        if changed is not None:
            self._on_change(changed)
        return True

    async def _record_failure(self, outgoing: OutgoingEvent, message: str) -> None:
        try:
            await self._outbox.mark_failed(outgoing, message)
        except (DatabaseUnavailableError, StorageFullError) as error:
            _log.warning(
                "failed publish cannot be recorded", operation_id=outgoing.operation_id, error=str(error)
            )

    def _pause(self, outgoing: OutgoingEvent, error: Exception) -> None:
        turn = self._schedule.setdefault(outgoing.event_id, _Turn(0.0))
        turn.at = self._clock.monotonic() + turn.pause_s
        _log.warning(
            "event not published, will be tried again",
            type=outgoing.event.type_name(),
            operation_id=outgoing.operation_id,
            attempt=outgoing.event.attempt,
            pause_s=turn.pause_s,
            error=str(error),
        )
        turn.pause_s = min(2 * turn.pause_s, _LONGEST_PAUSE_S)


@dataclass(slots=True)
class _Turn:
    """When an event is to be published, and how long to wait if that fails."""

    at: float
    """Monotonic seconds."""
    pause_s: float = _FIRST_PAUSE_S
