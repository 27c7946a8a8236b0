"""Streams of the in-memory bus."""

from collections import Counter, deque
from collections.abc import Sequence
from types import MappingProxyType

from ktrdr.bus.dead_letters import DeathCause
from ktrdr.bus.memory_consumer import MemoryConsumer, Stored
from ktrdr.bus.memory_queue import QueueStats
from ktrdr.bus.topology import Queue
from ktrdr.events.message import Message


class MemoryStream:
    """A log that each consumer reads by itself, from the first message after it subscribed.

    Reading takes nothing away, so settling, however it is done, only gives credit. Since nobody can ask for
    what came before, only what some consumer has yet to read is kept: at most ``max_length`` for each.
    """

    def __init__(self, spec: Queue) -> None:
        self.spec = spec
        self.owner = None
        self.dropped: Counter[DeathCause] = Counter()
        self._position = 0
        self._unread: dict[MemoryConsumer, deque[Stored]] = {}
        self._unacked = 0

    @property
    def name(self) -> str:
        """The name of the stream."""
        return self.spec.name

    def push(self, message: Message, routing_key: str, died_in: frozenset[str]) -> None:
        """Append a message; a consumer that is ``max_length`` behind loses its oldest."""
        self._position += 1
        for consumer, unread in self._unread.items():
            unread.append(Stored(message, routing_key, self._position, died_in=died_in))
            if self.spec.max_length is not None and len(unread) > self.spec.max_length:
                unread.popleft()
                self.dropped[DeathCause.MAX_LENGTH] += 1
            self._deliver(consumer, unread)

    def subscribe(self, consumer: MemoryConsumer) -> None:
        """Deliver to this consumer what comes from now on."""
        self._unread[consumer] = deque()

    def unsubscribe(self, consumer: MemoryConsumer) -> None:
        """Deliver nothing more to this consumer."""
        del self._unread[consumer]

    def acknowledge(self) -> None:
        """Take note that a delivered message is done."""
        self._settled(1)

    def give_back(self, returned: Sequence[Stored]) -> None:
        """Take note of them; a stream delivers each message once to each consumer."""
        self._settled(len(returned))

    def reject(self, stored: Stored, reason: str, *, is_held: bool) -> None:
        """Take note of it; the message stays in the stream for the others."""
        self._settled(1)

    def expire(self) -> float | None:
        """Return None: nothing in a stream expires."""
        return None

    def stats(self) -> QueueStats:
        """Return how far its slowest consumer is behind."""
        return QueueStats(
            ready=max(map(len, self._unread.values()), default=0),
            unacked=self._unacked,
            consumers=len(self._unread),
            dropped=MappingProxyType(dict(self.dropped)),
        )

    def _settled(self, count: int) -> None:
        self._unacked -= count
        for consumer, unread in self._unread.items():
            self._deliver(consumer, unread)

    def _deliver(self, consumer: MemoryConsumer, unread: deque[Stored]) -> None:
        if unread and consumer.has_credit:
            self._unacked += 1
            consumer.receive(unread.popleft())
