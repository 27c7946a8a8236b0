"""Consumers and deliveries of the in-memory bus."""

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from ktrdr.errors import BusError
from ktrdr.events.message import Message


@dataclass(slots=True, eq=False)
class Stored:
    """A message in a queue."""

    message: Message
    routing_key: str
    position: int
    """Its place in the queue, where it belongs again when it is given back."""
    expires_at: float | None = None
    """Monotonic seconds."""
    returns: int = 0
    """How often it was given back."""
    died_in: frozenset[str] = frozenset()
    """Queues that took it out by themselves, on its way here."""


class Source(Protocol):
    """Where a consumer's messages come from, and where it settles them."""

    @property
    def name(self) -> str:
        """The name of the queue."""

    def acknowledge(self) -> None:
        """Take note that a delivered message is done."""

    def give_back(self, returned: Sequence[Stored]) -> None:
        """Put the messages back to where they were."""

    def reject(self, stored: Stored, reason: str, *, is_held: bool) -> None:
        """Dead-letter a message, of which the queue keeps account or not."""

    def unsubscribe(self, consumer: "MemoryConsumer") -> None:
        """Deliver nothing more to this consumer."""


class _State(Enum):
    UNSETTLED = "unsettled"
    ACKED = "acked"
    NACKED = "nacked"
    REJECTED = "rejected"
    RETURNED = "given back when the bus was closed"


class MemoryDelivery:
    """One message that a consumer holds until it settles it, exactly once."""

    __slots__ = ("_consumer", "_redelivered", "_state", "_stored")

    def __init__(self, consumer: "MemoryConsumer", stored: Stored) -> None:
        self._consumer = consumer
        self._stored = stored
        self._redelivered = stored.returns > 0
        self._state = _State.UNSETTLED

    @property
    def message(self) -> Message:
        """The message."""
        return self._stored.message

    @property
    def queue(self) -> str:
        """The queue that it came from."""
        return self._consumer.source.name

    @property
    def redelivered(self) -> bool:
        """Whether it was delivered before, to anyone."""
        return self._redelivered

    async def ack(self) -> None:
        """Settle it: the work is done, or safely recorded elsewhere."""
        self._settle(_State.ACKED)
        if self._consumer.acknowledge:
            self._consumer.source.acknowledge()

    async def nack(self) -> None:
        """Give it back to its place in the queue."""
        self._settle(_State.NACKED)
        if self._consumer.acknowledge:
            self._consumer.source.give_back([self._stored])

    async def reject(self, reason: str) -> None:
        """Dead-letter it, with the reason."""
        self._settle(_State.REJECTED)
        self._consumer.source.reject(self._stored, reason, is_held=self._consumer.acknowledge)

    def _settle(self, state: _State) -> None:
        if self._state is not _State.UNSETTLED:
            raise BusError(
                f"A delivery of {self.queue} was settled before: it was {self._state.value}.",
                fix="Settle each delivery once, while its bus is open.",
            )
        self._state = state
        self._consumer.settled(self)

    def revoke(self) -> Stored:
        """Make it impossible to settle and return what it held."""
        self._state = _State.RETURNED
        return self._stored


class MemoryConsumer:
    """A subscription to one queue."""

    def __init__(self, source: Source, *, prefetch: int, tag: str, acknowledge: bool) -> None:
        self.source = source
        self.tag = tag
        self.acknowledge = acknowledge
        """Whether the queue holds what is delivered until it is settled."""
        self._prefetch = prefetch
        self._unsettled: dict[MemoryDelivery, None] = {}  # a set that keeps the order of delivery
        self._buffer: deque[MemoryDelivery] = deque(maxlen=None if acknowledge else prefetch)
        self._changed = asyncio.Event()
        self._ended = False

    def __aiter__(self) -> "MemoryConsumer":
        """Return itself."""
        return self

    async def __anext__(self) -> MemoryDelivery:
        """Wait for the next delivery; a wait that is cancelled loses none."""
        while not self._buffer:
            if self._ended:
                raise StopAsyncIteration
            self._changed.clear()
            await self._changed.wait()
        return self._buffer.popleft()

    def poll(self) -> MemoryDelivery | None:
        """Return the next delivery, if one is there already."""
        return self._buffer.popleft() if self._buffer else None

    async def cancel(self) -> None:
        """Take no more: undelivered messages go back; those in hand can still be settled."""
        if not self._ended:
            self.source.give_back(self.end(keep_in_hand=True))

    @property
    def has_credit(self) -> bool:
        """Whether it may be given another message, as long as it is subscribed."""
        return len(self._unsettled) < self._prefetch

    def receive(self, stored: Stored) -> None:
        """Buffer a message for whoever reads this."""
        delivery = MemoryDelivery(self, stored)
        if self.acknowledge:
            self._unsettled[delivery] = None
        self._buffer.append(delivery)
        self._changed.set()

    def settled(self, delivery: MemoryDelivery) -> None:
        """Take note that a delivery was settled, which gives credit for another."""
        self._unsettled.pop(delivery, None)

    @property
    def is_done(self) -> bool:
        """Whether it is cancelled and nothing in hand is unsettled."""
        return self._ended and not self._unsettled

    def end(self, *, keep_in_hand: bool) -> list[Stored]:
        """End the iteration and return what is to go back to the queue, in order."""
        if not self._ended:
            self._ended = True
            self._changed.set()
            self.source.unsubscribe(self)
        undelivered = list(self._buffer) if self.acknowledge else []
        going_back = undelivered if keep_in_hand else list(self._unsettled)
        self._buffer.clear()
        for delivery in going_back:
            del self._unsettled[delivery]
        return [delivery.revoke() for delivery in going_back]
