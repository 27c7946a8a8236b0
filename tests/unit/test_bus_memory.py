"""What the memory transport does beyond the contract: counting, expiry without polling, no cycles."""

import asyncio
import time

import pytest

from ktrdr.bus.dead_letters import REASON_HEADER, DeathCause
from ktrdr.bus.memory import MemoryBroker, MemoryBus
from ktrdr.bus.topology import Binding, Exchange, ExchangeKind, Queue, QueueKind, Topology
from ktrdr.errors import BusError, PublishNackedError
from ktrdr.events.message import Message
from tests.contract.virtual_clock import VirtualClock, run_everything


def topology(*queues: Queue) -> Topology:
    """Each queue gets what is published to ``in`` with its name as the key."""
    return Topology(
        exchanges=(Exchange("in", ExchangeKind.DIRECT), Exchange("dead", ExchangeKind.TOPIC)),
        queues=queues,
        bindings=tuple(Binding("in", queue.name, queue.name) for queue in queues),
    )


async def publish(
    bus: MemoryBus, text: str, key: str = "work", expiration_s: float | None = None, mandatory: bool = True
) -> None:
    message = Message(text.encode(), text, "test.message.v1", expiration_s=expiration_s)
    await bus.publish(message, exchange="in", routing_key=key, mandatory=mandatory, timeout_s=1)


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock()


@pytest.fixture
def broker(clock: VirtualClock) -> MemoryBroker:
    return MemoryBroker(clock)


async def test_the_broker_tells_what_is_in_a_queue(broker: MemoryBroker) -> None:
    bus = MemoryBus(broker)
    await bus.declare(topology(Queue("work")))
    for text in "abcde":
        await publish(bus, text)
    consumer = await bus.consume("work", prefetch=2, consumer_tag="c")
    stats = broker.queue_stats("work")
    assert (stats.ready, stats.unacked, stats.consumers, stats.depth) == (3, 2, 1, 5)
    await (await anext(consumer)).ack()
    assert broker.queue_depth("work") == 4
    await bus.close()
    stats = broker.queue_stats("work")
    assert (stats.ready, stats.unacked, stats.consumers) == (4, 0, 0)


async def test_there_are_no_figures_of_a_queue_that_is_not_there(broker: MemoryBroker) -> None:
    with pytest.raises(BusError, match="no queue 'work'"):
        broker.queue_depth("work")


async def test_what_is_lost_is_counted_by_its_cause(broker: MemoryBroker, clock: VirtualClock) -> None:
    bus = MemoryBus(broker)
    await bus.declare(
        topology(Queue("work", delivery_limit=0), Queue("bounded", QueueKind.CLASSIC, max_length=1))
    )
    await publish(bus, "late", expiration_s=1)
    await clock.advance(1)
    consumer = await bus.consume("work", prefetch=2, consumer_tag="c")
    await publish(bus, "poison")
    await publish(bus, "bad")
    await (await anext(consumer)).nack()
    await (await anext(consumer)).reject("unreadable")
    for text in "abc":
        await publish(bus, text, key="bounded")
    await publish(bus, "nobody", key="nowhere", mandatory=False)
    assert broker.queue_stats("work").dropped == {
        DeathCause.EXPIRED: 1,
        DeathCause.DELIVERY_LIMIT: 1,
        DeathCause.REJECTED: 1,
    }
    assert broker.queue_stats("bounded").dropped == {DeathCause.MAX_LENGTH: 2}
    assert broker.unrouted == 1
    await bus.close()


async def test_a_dead_letter_is_not_counted_as_lost(broker: MemoryBroker) -> None:
    bus = MemoryBus(broker)
    await bus.declare(topology(Queue("work", dead_letter_exchange="dead"), Queue("graves")))
    await bus.declare(Topology(bindings=(Binding("dead", "graves", "#"),)))
    await publish(bus, "bad")
    await (await anext(await bus.consume("work", prefetch=1, consumer_tag="c"))).reject("bad")
    assert broker.queue_stats("work").dropped == {}
    assert broker.queue_depth("graves") == 1
    await bus.close()


# --- expiry ---


async def test_a_message_expires_at_its_moment_without_anyone_asking(
    broker: MemoryBroker, clock: VirtualClock
) -> None:
    bus = MemoryBus(broker)
    await bus.declare(topology(Queue("work")))
    await publish(bus, "late", expiration_s=10)
    await clock.advance(9.99)
    assert broker.queue_depth("work") == 1
    await clock.advance(0.01)
    assert broker.queue_depth("work") == 0
    await bus.close()


async def test_an_earlier_deadline_in_another_queue_is_kept(
    broker: MemoryBroker, clock: VirtualClock
) -> None:
    bus = MemoryBus(broker)
    await bus.declare(topology(Queue("slow"), Queue("quick"), Queue("middle")))
    await publish(bus, "slow", key="slow", expiration_s=30)
    await publish(bus, "quick", key="quick", expiration_s=10)
    await publish(bus, "middle", key="middle", expiration_s=20)
    for depths in ((1, 0, 1), (1, 0, 0), (0, 0, 0)):
        await clock.advance(10)
        assert tuple(broker.queue_depth(name) for name in ("slow", "quick", "middle")) == depths
    await bus.close()


async def test_as_in_rabbitmq_only_the_head_of_a_queue_expires(
    broker: MemoryBroker, clock: VirtualClock
) -> None:
    bus = MemoryBus(broker)
    await bus.declare(topology(Queue("work")))
    await publish(bus, "patient", expiration_s=20)
    await publish(bus, "hasty", expiration_s=10)
    await clock.advance(15)
    assert broker.queue_depth("work") == 2
    await clock.advance(5)
    assert broker.queue_depth("work") == 0
    await bus.close()


async def test_what_falls_due_while_nobody_is_connected_expires_on_the_next_connection(
    broker: MemoryBroker, clock: VirtualClock
) -> None:
    first = MemoryBus(broker)
    await first.declare(topology(Queue("work")))
    await publish(first, "late", expiration_s=10)
    await first.close()
    await clock.advance(11)
    second = MemoryBus(broker)
    assert broker.queue_depth("work") == 0
    await second.close()


async def test_what_is_not_yet_due_on_the_next_connection_expires_later(
    broker: MemoryBroker, clock: VirtualClock
) -> None:
    first = MemoryBus(broker)
    await first.declare(topology(Queue("work")))
    await publish(first, "late", expiration_s=10)
    await first.close()
    await clock.advance(5)
    second = MemoryBus(broker)
    await run_everything()
    await clock.advance(5)
    assert broker.queue_depth("work") == 0
    await second.close()


async def test_no_task_is_left_when_the_last_connection_is_closed(broker: MemoryBroker) -> None:
    before = asyncio.all_tasks()
    one, two = MemoryBus(broker), MemoryBus(broker)
    await one.declare(topology(Queue("work")))
    await publish(one, "late", expiration_s=1000)
    await run_everything()
    assert asyncio.all_tasks() != before
    await one.close()
    assert asyncio.all_tasks() != before
    await two.close()
    assert asyncio.all_tasks() == before


async def test_messages_without_an_expiration_need_no_task(broker: MemoryBroker, clock: VirtualClock) -> None:
    before = asyncio.all_tasks()
    bus = MemoryBus(broker)
    await bus.declare(topology(Queue("work")))
    await publish(bus, "a")
    consumer = await bus.consume("work", prefetch=1, consumer_tag="c")
    await (await anext(consumer)).ack()
    assert asyncio.all_tasks() == before
    assert clock.sleepers == 0
    await bus.close()


async def test_expiry_works_on_the_system_clock() -> None:
    broker = MemoryBroker()
    bus = MemoryBus(broker)
    await bus.declare(topology(Queue("work", dead_letter_exchange="dead"), Queue("graves")))
    await bus.declare(Topology(bindings=(Binding("dead", "graves", "#"),)))
    graves = await bus.consume("graves", prefetch=1, consumer_tag="c")
    started = time.monotonic()
    await publish(bus, "late", expiration_s=0.05)
    async with asyncio.timeout(60):
        grave = await anext(graves)
    assert time.monotonic() - started >= 0.05
    assert grave.message.headers[REASON_HEADER] == "expired"
    await bus.close()


# --- dead letters that go round ---


async def test_a_queue_that_buries_in_itself_does_not_go_round_for_ever(
    broker: MemoryBroker, clock: VirtualClock
) -> None:
    bus = MemoryBus(broker)
    queue = Queue("work", QueueKind.CLASSIC, max_length=500, dead_letter_exchange="in")
    await bus.declare(topology(queue))
    for n in range(1200):
        await publish(bus, f"m{n}")
    stats = broker.queue_stats("work")
    assert stats.ready == 500
    assert stats.dropped == {DeathCause.MAX_LENGTH: 700}
    await bus.close()


async def test_two_full_queues_that_bury_in_each_other_come_to_rest(broker: MemoryBroker) -> None:
    bus = MemoryBus(broker)
    await bus.declare(
        Topology(
            exchanges=(
                Exchange("in", ExchangeKind.FANOUT),
                Exchange("to-a", ExchangeKind.FANOUT),
                Exchange("to-b", ExchangeKind.FANOUT),
            ),
            queues=(
                Queue("a", QueueKind.CLASSIC, max_length=2, dead_letter_exchange="to-b"),
                Queue("b", QueueKind.CLASSIC, max_length=2, dead_letter_exchange="to-a"),
            ),
            bindings=(Binding("in", "a"), Binding("to-a", "a"), Binding("to-b", "b")),
        )
    )
    for n in range(50):
        await publish(bus, f"m{n}")
    a, b = broker.queue_stats("a"), broker.queue_stats("b")
    lost = sum(a.dropped.values()) + sum(b.dropped.values())
    assert a.ready + b.ready + lost == 50
    assert (a.ready, b.ready) == (2, 2)
    await bus.close()


async def test_a_consumer_may_send_a_message_round_as_often_as_it_likes(broker: MemoryBroker) -> None:
    bus = MemoryBus(broker)
    await bus.declare(topology(Queue("work", dead_letter_exchange="in")))
    await publish(bus, "again")
    consumer = await bus.consume("work", prefetch=1, consumer_tag="c")
    for _ in range(10):
        await (await anext(consumer)).reject("once more")
    assert broker.queue_depth("work") == 1
    await bus.close()


# --- streams, limits, isolation ---


async def test_a_stream_keeps_only_what_a_consumer_has_yet_to_read(broker: MemoryBroker) -> None:
    bus = MemoryBus(broker)
    await bus.declare(topology(Queue("work", QueueKind.STREAM, max_length=3)))
    await publish(bus, "unheard")
    assert broker.queue_depth("work") == 0
    consumer = await bus.consume("work", prefetch=1, consumer_tag="c")
    for text in "abcdef":
        await publish(bus, text)
    stats = broker.queue_stats("work")
    assert (stats.ready, stats.unacked) == (3, 1)
    assert stats.dropped == {DeathCause.MAX_LENGTH: 2}
    seen = []
    for _ in range(4):
        delivery = await anext(consumer)
        seen.append(delivery.message.message_id)
        await delivery.ack()
    assert seen == ["a", "d", "e", "f"]
    await bus.close()
    assert broker.queue_depth("work") == 0


async def test_what_a_reader_of_a_stream_settles_is_no_longer_unacknowledged(broker: MemoryBroker) -> None:
    bus = MemoryBus(broker)
    await bus.declare(topology(Queue("work", QueueKind.STREAM)))
    consumer = await bus.consume("work", prefetch=4, consumer_tag="c")
    for text in "abcd":
        await publish(bus, text)
    acked, nacked, rejected = [await anext(consumer) for _ in range(3)]
    await acked.ack()
    await nacked.nack()
    await rejected.reject("bad")
    assert broker.queue_stats("work").unacked == 1
    await consumer.cancel()
    assert broker.queue_stats("work").unacked == 0
    await bus.close()


async def test_a_message_over_the_limit_is_refused_with_a_way_out(clock: VirtualClock) -> None:
    bus = MemoryBus(MemoryBroker(clock, max_message_bytes=10))
    await bus.declare(topology(Queue("work")))
    await publish(bus, "1234567890")
    with pytest.raises(PublishNackedError, match=r"11 bytes .* Send large content by reference"):
        await publish(bus, "12345678901")
    await bus.close()


async def test_a_delivered_message_cannot_be_changed_for_others(broker: MemoryBroker) -> None:
    bus = MemoryBus(broker)
    await bus.declare(topology(Queue("work")))
    await publish(bus, "m")
    delivery = await anext(await bus.consume("work", prefetch=1, consumer_tag="c"))
    with pytest.raises(TypeError):
        delivery.message.headers["attempt"] = 2  # type: ignore[index]  # what must not work
    await bus.close()


async def test_a_publisher_that_never_pauses_starves_nobody(broker: MemoryBroker) -> None:
    bus = MemoryBus(broker)
    await bus.declare(topology(Queue("work")))
    consumer = await bus.consume("work", prefetch=1, consumer_tag="c")
    waiting = asyncio.ensure_future(anext(consumer))
    for n in range(5):
        await publish(bus, f"m{n}")
    assert waiting.done()
    await bus.close()


async def test_a_busy_consumer_that_comes_and_goes_leaves_nothing_behind(broker: MemoryBroker) -> None:
    bus = MemoryBus(broker)
    await bus.declare(topology(Queue("work")))
    for n in range(100):
        await publish(bus, f"m{n}")
        consumer = await bus.consume("work", prefetch=1, consumer_tag=f"c{n}")
        delivery = await anext(consumer)
        await consumer.cancel()
        await delivery.ack()
    assert len(bus._consumers) <= 1
    assert broker.queue_stats("work").consumers == 0
    await bus.close()


async def test_a_declaration_with_other_arguments_says_which(broker: MemoryBroker) -> None:
    bus = MemoryBus(broker)
    await bus.declare(topology(Queue("work", max_length=3)))
    with pytest.raises(BusError, match=r"'work' exists with other arguments.*max_length=3.*max_length=4"):
        await bus.declare(topology(Queue("work", max_length=4)))
    await bus.close()
