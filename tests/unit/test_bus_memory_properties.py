"""No message is lost or doubled, whatever publishers, consumers and connections do."""

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any, TypeVar

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    precondition,
    rule,
)

from ktrdr.bus.dead_letters import REASON_HEADER
from ktrdr.bus.memory import MemoryBroker, MemoryBus
from ktrdr.bus.memory_consumer import MemoryConsumer, MemoryDelivery
from ktrdr.bus.topology import Binding, Exchange, ExchangeKind, Queue, QueueKind, Topology
from ktrdr.errors import BusError
from ktrdr.events.message import Message
from tests.contract.virtual_clock import VirtualClock, run_everything

T = TypeVar("T")


@dataclass(eq=False)
class Reader:
    """A consumer, and what the machine knows of it."""

    consumer: MemoryConsumer
    prefetch: int
    connection: int
    in_hand: set[int] = field(default_factory=set)
    last_fresh: int = -1
    """The newest message that it got as the first ever."""
    ended: bool = False


@dataclass(eq=False)
class Held:
    """A delivery that was read and is not settled."""

    delivery: MemoryDelivery
    number: int
    reader: Reader


class BusMachine(RuleBasedStateMachine):
    """Random publishers and consumers on one queue, and a model of what must be where."""

    readers = Bundle("readers")
    held = Bundle("held")

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.clock = VirtualClock()
        self.broker = MemoryBroker(self.clock)
        self.connections: dict[int, MemoryBus] = {}
        self.live: set[Reader] = set()
        """Those whose connection is open."""
        self.published = 0
        self.unacknowledged: set[int] = set()
        self.read_before: set[int] = set()
        self.rejected: set[int] = set()

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(coroutine)

    def connect(self) -> MemoryBus:
        async def connect() -> MemoryBus:
            return MemoryBus(self.broker)

        return self.run(connect())

    @initialize(
        delivery_limit=st.none() | st.integers(0, 2),
        max_length=st.none() | st.integers(1, 4),
    )
    def declare(self, delivery_limit: int | None, max_length: int | None) -> None:
        self.max_length = max_length
        self.publisher = self.connect()
        self.run(
            self.publisher.declare(
                Topology(
                    exchanges=(Exchange("in", ExchangeKind.DIRECT), Exchange("dead", ExchangeKind.FANOUT)),
                    queues=(
                        Queue(
                            "work",
                            QueueKind.QUORUM,
                            max_length=max_length,
                            delivery_limit=delivery_limit,
                            dead_letter_exchange="dead",
                        ),
                        Queue("graves"),
                    ),
                    bindings=(Binding("in", "work", "work"), Binding("dead", "graves")),
                )
            )
        )

    @rule(expiration_s=st.none() | st.integers(1, 5))
    def publish(self, expiration_s: int | None) -> None:
        number = self.published
        self.published += 1
        message = Message(b"", str(number), "test.message.v1", expiration_s=expiration_s)
        self.run(
            self.publisher.publish(message, exchange="in", routing_key="work", mandatory=True, timeout_s=1)
        )
        self.unacknowledged.add(number)

    @rule(seconds=st.integers(1, 5))
    def let_time_pass(self, seconds: int) -> None:
        self.run(self.clock.advance(seconds))

    @rule(target=readers, connection=st.integers(0, 2), prefetch=st.integers(1, 3))
    def consume(self, connection: int, prefetch: int) -> Reader:
        if connection not in self.connections:
            self.connections[connection] = self.connect()
        bus = self.connections[connection]
        consumer = self.run(bus.consume("work", prefetch=prefetch, consumer_tag="reader"))
        reader = Reader(consumer, prefetch, connection)
        self.live.add(reader)
        return reader

    @rule(target=held, reader=readers)
    def read(self, reader: Reader) -> Held | None:
        async def next_or_none() -> MemoryDelivery | None:
            waiting = asyncio.ensure_future(anext(reader.consumer))
            await run_everything()
            waiting.cancel()
            await asyncio.wait([waiting])
            if waiting.cancelled():
                return None
            if isinstance(waiting.exception(), StopAsyncIteration):
                assert reader.ended
                return None
            return waiting.result()

        delivery = self.run(next_or_none())
        if delivery is None:
            return None
        number = int(delivery.message.message_id)
        assert number in self.unacknowledged, "came back after it was acknowledged"
        assert all(number not in other.in_hand for other in self.live), "delivered to two at a time"
        if number in self.read_before:
            assert delivery.redelivered
        if not delivery.redelivered:
            assert number > reader.last_fresh, "came out of order"
            reader.last_fresh = number
        self.read_before.add(number)
        reader.in_hand.add(number)
        return Held(delivery, number, reader)

    @rule(held=consumes(held), way=st.sampled_from(["ack", "nack", "reject"]))
    def settle(self, held: Held | None, way: str) -> None:
        if held is None:
            return
        if held.number not in held.reader.in_hand:  # its connection was closed meanwhile
            try:
                self.run(held.delivery.ack())
            except BusError:
                return
            raise AssertionError("a delivery of a closed connection was settled")
        held.reader.in_hand.remove(held.number)
        if way == "ack":
            self.run(held.delivery.ack())
            self.unacknowledged.remove(held.number)
        elif way == "nack":
            self.run(held.delivery.nack())
        else:
            self.run(held.delivery.reject("unwanted"))
            self.rejected.add(held.number)

    @rule(reader=readers)
    def cancel(self, reader: Reader) -> None:
        self.run(reader.consumer.cancel())
        reader.ended = True

    @precondition(lambda self: self.connections)
    @rule(data=st.data())
    def close(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.connections)))
        self.run(self.connections.pop(name).close())
        for reader in [reader for reader in self.live if reader.connection == name]:
            self.live.remove(reader)
            reader.in_hand.clear()
            reader.ended = True

    @invariant()
    def nothing_is_lost(self) -> None:
        if self.published:
            depth = self.broker.queue_depth("work") + self.broker.queue_depth("graves")
            assert depth == len(self.unacknowledged)
            assert self.broker.queue_stats("work").dropped == {}

    @invariant()
    def no_prefetch_is_exceeded_and_no_free_consumer_waits_beside_a_message(self) -> None:
        if not self.published:
            return
        stats = self.broker.queue_stats("work")
        apart = sum(len(reader.in_hand) for reader in self.live if reader.ended)
        credit = sum(reader.prefetch for reader in self.live if not reader.ended)
        assert stats.unacked - apart <= credit
        if stats.ready:
            assert stats.unacked - apart == credit
        assert all(len(reader.in_hand) <= reader.prefetch for reader in self.live)
        assert self.max_length is None or stats.ready <= self.max_length

    async def drain(self, queue: str) -> list[Message]:
        bus = MemoryBus(self.broker)
        consumer = await bus.consume(queue, prefetch=1, consumer_tag="drain")
        found = []
        while self.broker.queue_depth(queue):
            delivery = await anext(consumer)
            found.append(delivery.message)
            await delivery.ack()
        await bus.close()
        return found

    def teardown(self) -> None:
        for connection in self.connections.values():
            self.run(connection.close())
        if self.published:
            left = [int(message.message_id) for message in self.run(self.drain("work"))]
            graves = {
                int(message.message_id): message.headers[REASON_HEADER]
                for message in self.run(self.drain("graves"))
            }
            assert left == sorted(left), "given back in another order"
            assert sorted([*left, *graves]) == sorted(self.unacknowledged)
            assert {number for number, reason in graves.items() if reason == "unwanted"} == self.rejected
            self.run(self.publisher.close())
        self.loop.close()


TestBusMachine = BusMachine.TestCase
TestBusMachine.settings = settings(max_examples=120, stateful_step_count=40, deadline=None)
