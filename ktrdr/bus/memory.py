"""The bus inside one process: RabbitMQ's semantics, nothing to install, nothing kept when it ends."""

import asyncio
from collections import deque
from dataclasses import dataclass, field, replace
from types import MappingProxyType

import structlog

from ktrdr.bus.dead_letters import DeathCause, dead_letter
from ktrdr.bus.matching import binding_matches
from ktrdr.bus.memory_consumer import MemoryConsumer, MemoryDelivery, Stored
from ktrdr.bus.memory_expiry import ExpiryAlarm
from ktrdr.bus.memory_queue import MemoryQueue, QueueStats
from ktrdr.bus.memory_stream import MemoryStream
from ktrdr.bus.topology import DEFAULT_EXCHANGE, Binding, Exchange, Queue, QueueKind, Topology
from ktrdr.clock import Clock, SystemClock
from ktrdr.errors import BusClosedError, BusError, PublishNackedError, QueueTakenError, UnroutableError
from ktrdr.events.message import Message

_log = structlog.get_logger()

MAX_MESSAGE_BYTES = 16 * 1024 * 1024
"""As RabbitMQ 4: what works here must work there."""


@dataclass(slots=True)
class _Exchange:
    spec: Exchange
    bindings: dict[Binding, None] = field(default_factory=dict)  # a set that keeps its order


class MemoryBroker:
    """What the connections of one process share: exchanges, queues, bindings, messages.

    Everything in it outlives the connections, but not the process. Use it from one event loop at a time.
    """

    def __init__(self, clock: Clock | None = None, *, max_message_bytes: int = MAX_MESSAGE_BYTES) -> None:
        self._clock = clock or SystemClock()
        self._max_message_bytes = max_message_bytes
        self._exchanges: dict[str, _Exchange] = {}
        self._queues: dict[str, MemoryQueue | MemoryStream] = {}
        self._connections: set[MemoryBus] = set()
        self._alarm = ExpiryAlarm(self._clock, self._expire)
        self._dead: deque[tuple[Stored, MemoryQueue, DeathCause, str]] = deque()
        self._burying = False
        self.unrouted = 0
        """Messages published to no queue; only one that is not mandatory is lost without an error."""

    def queue_stats(self, name: str) -> QueueStats:
        """Return what is in a queue.

        Raises:
            BusError: there is no such queue.
        """
        return self._queue(name).stats()

    def queue_depth(self, name: str) -> int:
        """Return the number of messages in a queue, delivered or not.

        Raises:
            BusError: there is no such queue.
        """
        return self.queue_stats(name).depth

    # --- for connections

    def connect(self, connection: "MemoryBus") -> None:
        """Let a connection in."""
        self._connections.add(connection)
        self._expire()  # what fell due while nobody was connected, so that the alarm was off

    async def disconnect(self, connection: "MemoryBus") -> None:
        """Delete the exclusive queues of a connection; with the last one, the alarm stops."""
        for name in [name for name, queue in self._queues.items() if queue.owner is connection]:
            del self._queues[name]
            for exchange in self._exchanges.values():
                for binding in [binding for binding in exchange.bindings if binding.queue == name]:
                    del exchange.bindings[binding]
        self._connections.discard(connection)
        if not self._connections:
            await self._alarm.stop()

    def declare(self, topology: Topology, connection: "MemoryBus") -> None:
        """Create what is missing."""
        for exchange in topology.exchanges:
            existing = self._exchanges.setdefault(exchange.name, _Exchange(exchange))
            _require_equal("exchange", exchange, existing.spec)
        for spec in topology.queues:
            if spec.name in self._queues:
                _require_equal("queue", spec, self.accessible_queue(spec.name, connection).spec)
            else:
                self._queues[spec.name] = self._new_queue(spec, connection)
        for binding in topology.bindings:
            self.accessible_queue(binding.queue, connection)
            self._exchange(binding.exchange).bindings[binding] = None

    def accessible_queue(self, name: str, connection: "MemoryBus") -> MemoryQueue | MemoryStream:
        """Return a queue, unless it is exclusive to another connection."""
        queue = self._queue(name)
        if queue.owner not in (None, connection):
            raise QueueTakenError(f"The queue '{name}' is exclusive to another connection.")
        return queue

    def publish(self, message: Message, *, exchange: str, routing_key: str, mandatory: bool) -> None:
        """Put the message in every queue that is bound for it."""
        if len(message.body) > self._max_message_bytes:
            raise PublishNackedError(
                f"A message of {len(message.body):,} bytes is over the limit of {self._max_message_bytes:,}.",
                fix="Send large content by reference.",
            )
        if exchange == DEFAULT_EXCHANGE:
            queues = [self._queues[routing_key]] if routing_key in self._queues else []
        else:
            queues = self._route(self._exchange(exchange), routing_key)
        message = _frozen(message)
        for queue in queues:
            queue.push(message, routing_key, frozenset())
        if not queues:
            self.unrouted += 1
            if mandatory:
                raise UnroutableError(
                    f"No queue is bound to '{exchange or 'the default exchange'}' for '{routing_key}'.",
                    fix="Declare the topology, with the lane that is meant, before publishing.",
                )

    # --- for queues

    def bury(self, stored: Stored, queue: MemoryQueue, cause: DeathCause, reason: str) -> None:
        """Dead-letter what a queue has taken out, or count it as dropped there."""
        self._dead.append((stored, queue, cause, reason))
        if self._burying:
            return  # one loop, not recursion: a full queue may dead-letter into another full queue
        self._burying = True
        try:
            while self._dead:
                self._bury_one(*self._dead.popleft())
        finally:
            self._burying = False

    def wake_at(self, deadline: float) -> None:
        """Look at the heads of the queues at that time, at the latest."""
        self._alarm.set(deadline)

    def _bury_one(self, stored: Stored, queue: MemoryQueue, cause: DeathCause, reason: str) -> None:
        name = queue.spec.dead_letter_exchange
        if cause is DeathCause.REJECTED:
            name = queue.spec.reject_exchange or name
        exchange = self._exchanges.get(name) if name is not None else None
        # A message that comes back to where it died without a consumer's doing would go round for ever.
        if exchange is not None and queue.name not in stored.died_in:
            letter = _frozen(dead_letter(stored.message, reason=reason, queue=queue.name))
            died_in = frozenset() if cause is DeathCause.REJECTED else stored.died_in | {queue.name}
            if targets := self._route(exchange, stored.routing_key):
                for target in targets:
                    target.push(letter, stored.routing_key, died_in)
                return
        queue.dropped[cause] += 1
        # Bounded queues without a dead-letter exchange are meant to lose their oldest.
        level = _log.debug if cause is DeathCause.MAX_LENGTH else _log.warning
        level(
            "message dropped",
            queue=queue.name,
            cause=cause,
            reason=reason,
            type=stored.message.type,
            message_id=stored.message.message_id,
        )

    def _route(self, exchange: _Exchange, routing_key: str) -> list[MemoryQueue | MemoryStream]:
        names = {
            binding.queue: None
            for binding in exchange.bindings
            if binding_matches(exchange.spec.kind, binding.routing_key, routing_key)
        }
        return [self._queues[name] for name in names]

    def _expire(self) -> float | None:
        deadlines = [queue.expire() for queue in list(self._queues.values())]
        return min((deadline for deadline in deadlines if deadline is not None), default=None)

    def _new_queue(self, spec: Queue, connection: "MemoryBus") -> MemoryQueue | MemoryStream:
        if spec.kind is QueueKind.STREAM:
            return MemoryStream(spec)
        owner = connection if spec.exclusive else None
        return MemoryQueue(spec, owner=owner, broker=self, clock=self._clock)

    def _exchange(self, name: str) -> _Exchange:
        if (exchange := self._exchanges.get(name)) is None:
            raise BusError(f"There is no exchange '{name}'.", fix="Declare the topology first.")
        return exchange

    def _queue(self, name: str) -> MemoryQueue | MemoryStream:
        if (queue := self._queues.get(name)) is None:
            raise BusError(f"There is no queue '{name}'.", fix="Declare the topology first.")
        return queue


def _frozen(message: Message) -> Message:
    """Nobody can change a message that was published: its headers are its only mutable part."""
    return replace(message, headers=MappingProxyType(dict(message.headers)))


def _require_equal(kind: str, wanted: Exchange | Queue, existing: Exchange | Queue) -> None:
    if wanted != existing:
        raise BusError(
            f"The {kind} '{existing.name}' exists with other arguments: {existing}, not {wanted}.",
            fix="Delete it, or declare it as it is.",
        )


class MemoryBus:
    """One connection to a `MemoryBroker`; implements `ktrdr.bus.port.Bus`."""

    def __init__(self, broker: MemoryBroker) -> None:
        self._broker = broker
        self._consumers: list[MemoryConsumer] = []
        self._closed = False
        broker.connect(self)

    async def declare(self, topology: Topology) -> None:
        """Create what is missing; a no-op for what is there already."""
        self._require_open()
        self._broker.declare(topology, self)

    async def publish(
        self, message: Message, *, exchange: str, routing_key: str, mandatory: bool, timeout_s: float
    ) -> None:
        """Return once every queue that is bound for the message has it, which takes no time to wait for."""
        self._require_open()
        self._broker.publish(message, exchange=exchange, routing_key=routing_key, mandatory=mandatory)
        # A broker's confirm comes later, so others run meanwhile; else a publishing loop would starve them.
        await asyncio.sleep(0)

    async def consume(
        self, queue: str, *, prefetch: int, consumer_tag: str, acknowledge: bool = True
    ) -> MemoryConsumer:
        """Subscribe to a queue."""
        self._require_open()
        if prefetch < 1:
            raise ValueError(f"prefetch is {prefetch}, but a consumer takes at least 1 message at a time")
        source = self._broker.accessible_queue(queue, self)
        if isinstance(source, MemoryStream) and not acknowledge:
            raise BusError(f"What the stream '{queue}' sends has to be acknowledged.")
        consumer = MemoryConsumer(source, prefetch=prefetch, tag=consumer_tag, acknowledge=acknowledge)
        self._consumers = [*(held for held in self._consumers if not held.is_done), consumer]
        source.subscribe(consumer)
        return consumer

    async def get(self, queue: str) -> MemoryDelivery | None:
        """Take the next message without subscribing; None if none is ready."""
        self._require_open()
        if isinstance(self._broker.accessible_queue(queue, self), MemoryStream):
            raise BusError(f"The stream '{queue}' can only be consumed.")
        consumer = await self.consume(queue, prefetch=1, consumer_tag="get")
        delivery = consumer.poll()
        await consumer.cancel()
        return delivery

    async def close(self) -> None:
        """Cancel consumers, give unsettled deliveries back in order, and disconnect."""
        if self._closed:
            return
        self._closed = True
        # All end before anything goes back, so that nothing goes to another consumer of this connection.
        ended = [(consumer.source, consumer.end(keep_in_hand=False)) for consumer in self._consumers]
        for source, returned in ended:
            source.give_back(returned)
        await self._broker.disconnect(self)

    def _require_open(self) -> None:
        if self._closed:
            raise BusClosedError("This connection is closed.")
