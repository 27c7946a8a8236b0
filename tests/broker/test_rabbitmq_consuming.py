"""Consumers whose broker has other ideas, and messages that nobody should have sent."""

import asyncio
import struct
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime
from typing import Any

import pytest
import pytest_asyncio
from aiormq import spec
from aiormq.abc import ChannelFrame

from ktrdr.bus.dead_letter_box import DeadLetter
from ktrdr.bus.dead_letters import FROM_QUEUE_HEADER, FROM_USER_HEADER, REASON_HEADER
from ktrdr.bus.rabbitmq import RabbitMQBus
from ktrdr.bus.topology import Binding, Exchange, ExchangeKind, Queue, QueueKind, Topology
from ktrdr.errors import AccessRefusedError, BusError, CodecError
from ktrdr.events.codec import decode
from tests.broker.node import PrivateNode
from tests.broker.proxy import Proxy
from tests.broker.rabbitmq_cases import (
    DEAD,
    GRAVES,
    GRAVEYARD,
    PATIENCE_S,
    WORK,
    Scratch,
    drain,
    eventually,
    message,
    publish,
    raw_channel,
    scratch_on,
)

pytestmark = [pytest.mark.broker, pytest.mark.xdist_group("rabbitmq")]


@pytest_asyncio.fixture
async def scratch(private_node: PrivateNode) -> AsyncIterator[Scratch]:
    async with scratch_on(private_node) as made:
        yield made


@pytest_asyncio.fixture
async def bus(scratch: Scratch) -> RabbitMQBus:
    return await scratch.working_bus()


async def ends(consumer: Any) -> bool:
    """Wait for a consumer to end; False if it delivers instead."""
    try:
        await asyncio.wait_for(anext(consumer), PATIENCE_S)
    except StopAsyncIteration:
        return True
    return False


# --- lost ---


async def test_a_consumer_ends_with_its_queue(
    bus: RabbitMQBus, scratch: Scratch, private_node: PrivateNode
) -> None:
    consumer = await bus.consume(WORK, prefetch=3, consumer_tag="c")
    for n in range(5):
        await publish(bus, f"m{n}")
    in_hand = await anext(consumer)
    await asyncio.to_thread(private_node.management.delete_queue, scratch.wire(WORK))
    await eventually(lambda: bus.stats.consumers_lost == 1, "it is noticed")
    assert await ends(consumer)
    assert bus.stats.connections_lost == 0
    with pytest.raises(BusError):
        await bus.consume(WORK, prefetch=1, consumer_tag="c")
    assert bus.stats.consumers_lost == 1
    # Declaring declares: that the queue was there before means nothing.
    bus = await scratch.working_bus()
    await publish(bus, "again")
    assert await ends(consumer)
    again = await bus.consume(WORK, prefetch=1, consumer_tag="c")
    assert (await anext(again)).message.message_id == "again"
    await consumer.cancel()
    with pytest.raises(BusError):
        await in_hand.ack()


@pytest.mark.parametrize("others", [0, 1])
async def test_a_consumer_that_the_broker_has_forgotten_is_found(
    scratch: Scratch, private_node: PrivateNode, others: int
) -> None:
    """With another consumer in between, the count of the queue tells nothing, but what waits in it does."""
    bus = await scratch.working_bus(watchdog_interval_s=0.3)
    consumer = await bus.consume(WORK, prefetch=1, consumer_tag="forgotten")
    other = await scratch.working_bus()
    holding = [await other.consume(WORK, prefetch=1, consumer_tag="other") for _ in range(others)]
    await asyncio.sleep(1.0)
    assert not consumer.has_ended
    await asyncio.to_thread(private_node.evaluate, _forget(scratch.wire(WORK), "forgotten"))
    for n in range(others + 1):
        await publish(bus, f"m{n}")
    assert await ends(consumer)
    assert (bus.stats.consumers_lost, bus.stats.consumers_vanished) == (1, 1)
    assert bus.stats.connections_lost == 0
    assert [(await anext(each)).message.message_id for each in holding] == ["m0"][:others]


def _forget(queue: str, tag: str) -> str:
    """Have a quorum queue drop a consumer behind the back of its channel."""
    return (
        f'{{ok, Q}} = rabbit_amqqueue:lookup(rabbit_misc:r(<<"/">>, queue, <<"{queue}">>)), '
        "Leader = amqqueue:get_pid(Q), "
        "{ok, {_, Found}, _} = ra:local_query(Leader, fun rabbit_fifo:query_consumers/1), "
        "[ra:process_command(Leader, rabbit_fifo:make_checkout(Id, cancel, #{})) "
        f'|| {{<<"{tag}">>, _}} = Id <- maps:keys(Found)]'
    )


async def test_idle_and_busy_consumers_are_left_alone(scratch: Scratch) -> None:
    bus = await scratch.working_bus(watchdog_interval_s=0.1)
    stream = Queue("ktrdr.log", QueueKind.STREAM, max_length=100)
    await bus.declare(Topology(queues=(stream,)))
    await publish(bus, "kept", exchange="", routing_key=stream.name)
    consumers = [
        await bus.consume(WORK, prefetch=1, consumer_tag="busy"),
        await bus.consume(stream.name, prefetch=1, consumer_tag="reader"),
    ]
    for n in range(5):
        await publish(bus, f"m{n}")
    await anext(consumers[0])
    await asyncio.sleep(1.5)
    assert not any(consumer.has_ended for consumer in consumers)
    assert bus.stats.consumers_lost == 0


async def test_who_gives_up_cancelling_loses_nothing(scratch: Scratch) -> None:
    with Proxy(scratch.url) as proxy:
        bus = await scratch.working_bus(proxy.url)
        await publish(bus, "a")
        await publish(bus, "b")
        consumer = await bus.consume(WORK, prefetch=2, consumer_tag="c")
        in_hand = await anext(consumer)
        proxy.delay(0.1)
        giving_up = asyncio.create_task(consumer.cancel())
        await asyncio.sleep(0.01)
        giving_up.cancel()
        await asyncio.wait((giving_up,))
        assert giving_up.cancelled()
        await in_hand.ack()
        await consumer.cancel()
        proxy.delay(0.0)
        again = await bus.consume(WORK, prefetch=1, consumer_tag="c")
        assert (await anext(again)).message.message_id == "b"
        assert bus.stats.connections_lost == 0


async def test_who_gives_up_subscribing_takes_no_message_along(scratch: Scratch) -> None:
    with Proxy(scratch.url) as proxy:
        bus = await scratch.working_bus(proxy.url)
        await publish(bus, "m")
        proxy.delay(0.1)
        giving_up = asyncio.create_task(bus.consume(WORK, prefetch=1, consumer_tag="c"))
        await asyncio.sleep(0.15)
        giving_up.cancel()
        await asyncio.wait((giving_up,))
        proxy.delay(0.0)
        consumer = await bus.consume(WORK, prefetch=1, consumer_tag="c")
        assert (await asyncio.wait_for(anext(consumer), PATIENCE_S)).message.message_id == "m"


async def test_people_see_who_consumes(scratch: Scratch, private_node: PrivateNode) -> None:
    bus = await scratch.working_bus()
    for _ in range(2):
        await bus.consume(WORK, prefetch=7, consumer_tag="host-agent@machine/slot-1")

    def shown() -> list[tuple[str, int]]:
        return [
            (each["consumer_tag"], each["prefetch_count"])
            for each in private_node.management.consumers()
            if each["queue"]["name"] == scratch.wire(WORK)
        ]

    wanted = [("host-agent@machine/slot-1", 7)] * 2
    await eventually(lambda: shown() == wanted, "the management API shows both")


async def test_a_user_without_the_right_to_read_is_told(
    bus: RabbitMQBus, scratch: Scratch, private_node: PrivateNode
) -> None:
    private_node.management.add_user("writer", "writer")
    private_node.management.set_permissions("writer", write=".*")
    writer = scratch.bus(private_node.amqp_url(user="writer"))
    with pytest.raises(AccessRefusedError, match="consuming"):
        await writer.consume(WORK, prefetch=1, consumer_tag="c")
    with pytest.raises(AccessRefusedError, match="getting"):
        await writer.get(WORK)
    private_node.management.delete_user("writer")


# --- rejected ---


async def test_a_delivery_says_which_user_published_it(bus: RabbitMQBus) -> None:
    await publish(bus, "m")
    delivery = await bus.get(WORK)
    assert delivery is not None
    assert delivery.message.user_id == "guest"


async def test_a_rejected_message_still_says_which_user_published_it(
    scratch: Scratch, private_node: PrivateNode
) -> None:
    admin = scratch.bus()
    await admin.declare(GRAVEYARD)
    await admin.declare(Topology(queues=(Queue(WORK, dead_letter_exchange=DEAD),)))
    private_node.management.add_user("writer", "writer")
    private_node.management.set_permissions("writer", write=".*")
    writer = scratch.bus(private_node.amqp_url(user="writer"))
    bad = message("bad", headers={FROM_USER_HEADER: "somebody else"})
    await writer.publish(bad, exchange="", routing_key=WORK, mandatory=True, timeout_s=PATIENCE_S)
    consumer = await admin.consume(WORK, prefetch=1, consumer_tag="c")
    await (await anext(consumer)).reject("no msgpack")
    graves = await admin.consume(GRAVES, prefetch=1, consumer_tag="graves")
    grave = (await asyncio.wait_for(anext(graves), PATIENCE_S)).message
    assert (grave.user_id, DeadLetter(grave).from_user) == ("guest", "writer")
    private_node.management.delete_user("writer")


async def test_a_reject_without_the_right_to_explain_is_dead_lettered_by_the_broker(
    scratch: Scratch, private_node: PrivateNode
) -> None:
    topology = Topology(
        GRAVEYARD.exchanges, (Queue(WORK, dead_letter_exchange=DEAD), *GRAVEYARD.queues), GRAVEYARD.bindings
    )
    admin = scratch.bus()
    await admin.declare(topology)
    await publish(admin, "bad", exchange="")
    private_node.management.add_user("agent", "agent")
    private_node.management.set_permissions("agent", read=".*")
    agent = scratch.bus(private_node.amqp_url(user="agent"))
    await agent.declare(topology)  # all of it is there
    consumer = await agent.consume(WORK, prefetch=1, consumer_tag="c")
    await (await anext(consumer)).reject("no msgpack")
    graves = await admin.consume(GRAVES, prefetch=1, consumer_tag="graves")
    grave = (await asyncio.wait_for(anext(graves), PATIENCE_S)).message
    assert (grave.message_id, grave.headers) == (
        "bad",
        {REASON_HEADER: "rejected", FROM_QUEUE_HEADER: WORK},
    )
    assert agent.stats.rejects_unexplained == 1
    private_node.management.delete_user("agent")


async def test_a_reject_while_the_broker_blocks_is_dead_lettered_by_the_broker(
    scratch: Scratch, private_node: PrivateNode
) -> None:
    bus = scratch.bus()
    await bus.declare(GRAVEYARD)
    await bus.declare(Topology(queues=(Queue(WORK, dead_letter_exchange=DEAD),)))
    for text in ("bad", "good"):
        await publish(bus, text, exchange="")
    consumer = await bus.consume(WORK, prefetch=1, consumer_tag="c")
    await asyncio.to_thread(private_node.set_memory_alarm, True)
    await (await anext(consumer)).reject("no msgpack")
    assert (await asyncio.wait_for(anext(consumer), PATIENCE_S)).message.message_id == "good"
    assert bus.stats.rejects_unexplained == 1


async def test_a_dead_letter_names_the_queue_that_we_know(bus: RabbitMQBus) -> None:
    dying = Queue("ktrdr.dying", dead_letter_exchange=DEAD)
    await bus.declare(GRAVEYARD)
    await bus.declare(Topology(queues=(dying,)))
    await bus.publish(
        message("m", expiration_s=0.001, headers={"attempt": 1, FROM_USER_HEADER: "somebody else"}),
        exchange="",
        routing_key=dying.name,
        mandatory=True,
        timeout_s=PATIENCE_S,
    )
    consumer = await bus.consume(GRAVES, prefetch=1, consumer_tag="c")
    delivered = (await asyncio.wait_for(anext(consumer), PATIENCE_S)).message
    assert delivered.headers == {"attempt": 1, REASON_HEADER: "expired", FROM_QUEUE_HEADER: dying.name}


# --- hostile ---

HOSTILE: dict[str, spec.Basic.Properties] = {
    "nothing": spec.Basic.Properties(),
    "nested headers": spec.Basic.Properties(headers={"a": {"b": [1, {"c": None}]}, "x-death": [[1], 2]}),
    "headers of all kinds": spec.Basic.Properties(
        headers={
            "list": [1],
            "none": None,
            "time": datetime(2026, 1, 1, tzinfo=UTC),
            "raw": bytearray(b"\xff"),
        }
    ),
    "a false death": spec.Basic.Properties(headers={"x-death": "murder", REASON_HEADER: ["why"]}),
    "many headers": spec.Basic.Properties(headers={f"h{n}": "x" * 1000 for n in range(100)}),
    "a late time": spec.Basic.Properties(timestamp=datetime(9999, 12, 31, tzinfo=UTC)),
    "all names at their longest": spec.Basic.Properties(
        message_id="m" * 255, message_type="t" * 255, app_id="a" * 255, correlation_id="c" * 255
    ),
}


class Wire(spec.Basic.Properties):
    """Properties that are not what AMQP wants them to be."""

    fields: Mapping[str, bytes] = {}

    def encode_property(self, name: str, value: Any) -> bytes:
        return self.fields[name] if name in self.fields else super().encode_property(name, value)


def wire(**fields: bytes) -> Wire:
    properties = Wire(message_id="m")
    properties.fields = fields
    for name in fields:
        setattr(properties, name, {"headers": {}, "timestamp": datetime.now(UTC)}.get(name, "?"))
    return properties


def nested_tables(depth: int) -> bytes:
    table = struct.pack(">I", 0)
    for _ in range(depth):
        entry = b"\x01aF" + table
        table = struct.pack(">I", len(entry)) + entry
    return table


BEYOND_AMQP: dict[str, spec.Basic.Properties] = {
    "a time that no calendar has": wire(timestamp=struct.pack(">Q", 2**64 - 1)),
    "a time in a header that no calendar has": wire(
        headers=struct.pack(">I", 11) + b"\x01aT" + struct.pack(">Q", 2**63)
    ),
    "names that are not UTF-8": wire(
        message_id=b"\x02\xff\xfe", app_id=b"\x01\x80", message_type=b"\x01\xc3"
    ),
    "a header's name that is not UTF-8": wire(headers=struct.pack(">I", 4) + b"\x01\xfft\x01"),
    "a header that is not UTF-8": wire(
        headers=struct.pack(">I", 9) + b"\x01aS" + struct.pack(">I", 2) + b"\xff\xfe"
    ),
    "tables in tables": wire(headers=nested_tables(5000)),
}


@pytest.mark.parametrize("kind", list(HOSTILE | BEYOND_AMQP))
async def test_a_hostile_message_is_one_that_the_codec_refuses_and_no_more(
    bus: RabbitMQBus, scratch: Scratch, kind: str
) -> None:
    consumer = await bus.consume(WORK, prefetch=1, consumer_tag="c")
    async with raw_channel(scratch.url) as channel:
        await channel.basic_publish(
            b"\x80", routing_key=scratch.wire(WORK), properties=(HOSTILE | BEYOND_AMQP)[kind]
        )
    await publish(bus, "good")
    delivery = await asyncio.wait_for(anext(consumer), PATIENCE_S)
    with pytest.raises(CodecError):
        decode(delivery.message)
    assert all(isinstance(value, str | int | float | bool) for value in delivery.message.headers.values())
    await delivery.reject("hostile")
    assert (await asyncio.wait_for(anext(consumer), PATIENCE_S)).message.message_id == "good"
    assert bus.stats.connections_lost == 0


async def test_a_routing_key_that_is_not_text_hurts_nobody(bus: RabbitMQBus, scratch: Scratch) -> None:
    topic = Exchange("ktrdr.topic", ExchangeKind.TOPIC)
    await bus.declare(Topology((topic,), (), (Binding(topic.name, WORK, "#"),)))
    await bus.declare(GRAVEYARD)
    consumer = await bus.consume(WORK, prefetch=1, consumer_tag="c")
    publish_frame = (
        bytes([0, 60, 0, 40, 0, 0, len(scratch.wire(topic.name))]) + scratch.wire(topic.name).encode()
    )
    async with raw_channel(scratch.url) as channel:
        await _publish_raw(channel, publish_frame + b"\x02\xff\xfe" + b"\x00")
        delivery = await asyncio.wait_for(anext(consumer), PATIENCE_S)
    await delivery.reject("hostile")
    assert await drain(bus) == []
    assert bus.stats.connections_lost == 0


async def _publish_raw(channel: Any, method: bytes) -> None:
    def frame(kind: int, payload: bytes) -> bytes:
        return struct.pack(">BHI", kind, channel.number, len(payload)) + payload + b"\xce"

    header = struct.pack(">HHQH", 60, 0, 1, 0)
    payload = frame(1, method) + frame(2, header) + frame(3, b"x")
    await channel.connection.write_queue.put(ChannelFrame(payload=payload, should_close=False))
