"""Queues and streams of the in-memory bus."""

import heapq
import itertools
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Protocol

from ktrdr.bus.dead_letters import DeathCause
from ktrdr.bus.memory_consumer import MemoryConsumer, Stored
from ktrdr.bus.topology import Queue
from ktrdr.clock import Clock
from ktrdr.events.message import Message


@dataclass(frozen=True, slots=True)
class QueueStats:
    """What is in a queue."""

    ready: int
    """Messages that wait for a consumer."""
    unacked: int
    """Messages that consumers hold."""
    consumers: int
    dropped: Mapping[DeathCause, int]
    """Messages lost because no queue takes the dead letters."""

    @property
    def depth(self) -> int:
        """Messages in the queue, delivered or not."""
        return self.ready + self.unacked


class Broker(Protocol):
    """What a queue needs of its broker."""

    def bury(self, stored: Stored, queue: "MemoryQueue", cause: DeathCause, reason: str) -> None:
        """Dead-letter what the queue has taken out, or count it as dropped there."""

    def wake_at(self, deadline: float) -> None:
        """Call `MemoryQueue.expire` at that monotonic time, at the latest."""


class MemoryQueue:
    """A queue as RabbitMQ has them: first in, first out, and back to its place what is given back."""

    def __init__(self, spec: Queue, *, owner: object | None, broker: Broker, clock: Clock) -> None:
        self.spec = spec
        self.owner = owner
        """The connection of an exclusive queue."""
        self.dropped: Counter[DeathCause] = Counter()
        self._broker = broker
        self._clock = clock
        self._positions = itertools.count()
        self._fresh: deque[Stored] = deque()
        self._returned: list[tuple[int, Stored]] = []  # a heap; each is older than all that are fresh
        self._unacked = 0
        self._consumers: deque[MemoryConsumer] = deque()

    @property
    def name(self) -> str:
        """The name of the queue."""
        return self.spec.name

    def push(self, message: Message, routing_key: str, died_in: frozenset[str]) -> None:
        """Add a message at the tail."""
        expires_at = None
        if message.expiration_s is not None:
            expires_at = self._clock.monotonic() + message.expiration_s
        self._fresh.append(Stored(message, routing_key, next(self._positions), expires_at, died_in=died_in))
        self._dispatch()

    def subscribe(self, consumer: MemoryConsumer) -> None:
        """Deliver to this consumer too, in turn with the others."""
        self._consumers.append(consumer)
        self._dispatch()

    def unsubscribe(self, consumer: MemoryConsumer) -> None:
        """Deliver nothing more to this consumer."""
        self._consumers.remove(consumer)

    def acknowledge(self) -> None:
        """Take note that a delivered message is done."""
        self._unacked -= 1
        self._dispatch()

    def give_back(self, returned: Sequence[Stored]) -> None:
        """Put the messages back to where they were, unless they were given back too often."""
        for stored in returned:
            self._unacked -= 1
            stored.returns += 1
            if not self._is_over_limit(stored):
                heapq.heappush(self._returned, (stored.position, stored))
        for stored in filter(self._is_over_limit, returned):
            self._bury(stored, DeathCause.DELIVERY_LIMIT)
        self._dispatch()

    def reject(self, stored: Stored, reason: str, *, is_held: bool) -> None:
        """Dead-letter the message."""
        self._unacked -= is_held
        self._broker.bury(stored, self, DeathCause.REJECTED, reason)
        self._dispatch()

    def expire(self) -> float | None:
        """Take out what has expired and return when the next will.

        As in RabbitMQ a message expires only at the head of its queue, so a later one may have to wait.
        """
        self._dispatch()
        head = self._head()
        return head.expires_at if head is not None else None

    def stats(self) -> QueueStats:
        """Return how full it is."""
        return QueueStats(
            ready=len(self._fresh) + len(self._returned),
            unacked=self._unacked,
            consumers=len(self._consumers),
            dropped=MappingProxyType(dict(self.dropped)),
        )

    # `bury` may push to this very queue, so every loop below looks at the queue anew in each round.

    def _dispatch(self) -> None:
        while (head := self._head()) is not None:
            if self._is_expired(head):
                self._bury(self._pop(), DeathCause.EXPIRED)
            elif (consumer := self._next_consumer()) is not None:
                self._unacked += consumer.acknowledge
                consumer.receive(self._pop())
            else:
                break
        limit = self.spec.max_length
        while limit is not None and len(self._fresh) + len(self._returned) > limit:
            self._bury(self._pop(), DeathCause.MAX_LENGTH)
        head = self._head()
        if head is not None and head.expires_at is not None:
            self._broker.wake_at(head.expires_at)

    def _next_consumer(self) -> MemoryConsumer | None:
        for _ in range(len(self._consumers)):
            consumer = self._consumers[0]
            self._consumers.rotate(-1)
            if consumer.has_credit:
                return consumer
        return None

    def _head(self) -> Stored | None:
        if self._returned:
            return self._returned[0][1]
        return self._fresh[0] if self._fresh else None

    def _pop(self) -> Stored:
        return heapq.heappop(self._returned)[1] if self._returned else self._fresh.popleft()

    def _is_over_limit(self, stored: Stored) -> bool:
        return self.spec.delivery_limit is not None and stored.returns > self.spec.delivery_limit

    def _is_expired(self, stored: Stored) -> bool:
        return stored.expires_at is not None and stored.expires_at <= self._clock.monotonic()

    def _bury(self, stored: Stored, cause: DeathCause) -> None:
        self._broker.bury(stored, self, cause, cause.value)
