"""What can go wrong with a publish, and what whoever publishes is told."""

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from ktrdr.bus.rabbitmq import RabbitMQBus
from ktrdr.bus.topology import Exchange, ExchangeKind, Topology
from ktrdr.errors import (
    AccessRefusedError,
    BusClosedError,
    BusError,
    BusUnavailableError,
    PublishBlockedError,
    PublishNackedError,
    PublishTimeoutError,
    UnroutableError,
)
from tests.broker.node import PrivateNode
from tests.broker.node_config import MIB
from tests.broker.proxy import Proxy
from tests.broker.rabbitmq_cases import (
    IN,
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


async def outcomes(*publishes: object) -> list[type[BaseException] | None]:
    results = await asyncio.gather(*publishes, return_exceptions=True)  # type: ignore[call-overload]  # coroutines
    return [type(result) if result is not None else None for result in results]


async def test_each_message_is_confirmed_or_returned_by_its_own_key(bus: RabbitMQBus) -> None:
    keys = [WORK if n % 2 else "nowhere" for n in range(100)]
    assert await outcomes(*(publish(bus, f"m{n}", routing_key=key) for n, key in enumerate(keys))) == [
        None if key == WORK else UnroutableError for key in keys
    ]
    assert (bus.stats.publishes_confirmed, bus.stats.publishes_returned) == (50, 50)


async def test_one_id_under_way_twice_is_not_taken_for_the_other(bus: RabbitMQBus) -> None:
    await publish(bus, "first")
    for _ in range(20):
        assert await outcomes(
            publish(bus, "same"), publish(bus, "same", routing_key="nowhere"), publish(bus, "same")
        ) == [None, UnroutableError, None]


async def test_a_missing_exchange_is_told_to_who_named_it_and_hinders_no_other(bus: RabbitMQBus) -> None:
    sent = [
        publish(bus, f"m{n}", **({"exchange": "ktrdr.missing"} if n % 10 == 5 else {})) for n in range(100)
    ]
    results = await asyncio.gather(*sent, return_exceptions=True)
    for n, result in enumerate(results):
        if n % 10 == 5:
            assert isinstance(result, BusError)
            assert "no exchange" in result.message
            assert result.fix is not None
        else:
            assert result is None
    assert bus.stats.publishes_refused == 10


async def test_an_exchange_that_is_deleted_later_costs_others_an_error_that_they_can_retry(
    bus: RabbitMQBus, scratch: Scratch
) -> None:
    gone = Exchange("ktrdr.gone", ExchangeKind.FANOUT)
    await bus.declare(Topology((gone,)))
    await publish(bus, "was there", exchange=gone.name, mandatory=False)
    async with raw_channel(scratch.url) as channel:
        await channel.exchange_delete(scratch.wire(gone.name))
    results = await asyncio.gather(
        publish(bus, "into the void", exchange=gone.name, mandatory=False),
        *(publish(bus, f"m{n}") for n in range(50)),
        return_exceptions=True,
    )
    assert isinstance(results[0], BusError)
    assert "no exchange" in str(results[0])
    lost = [f"m{n}" for n, result in enumerate(results[1:]) if result is not None]
    assert all(isinstance(result, BusUnavailableError) for result in results[1:] if result is not None)
    for each in lost:
        await publish(bus, each)
    assert set(await drain(bus)) == {f"m{n}" for n in range(50)}


async def test_a_full_queue_that_refuses_is_a_nack(bus: RabbitMQBus, scratch: Scratch) -> None:
    full = "ktrdr.full"
    async with raw_channel(scratch.url) as channel:
        arguments = {"x-queue-type": "classic", "x-max-length": 1, "x-overflow": "reject-publish"}
        await channel.queue_declare(scratch.wire(full), durable=True, arguments=dict(arguments))
    await publish(bus, "fits", exchange="", routing_key=full)
    with pytest.raises(PublishNackedError, match=r"full.*\. See "):
        await publish(bus, "does not", exchange="", routing_key=full)
    assert bus.stats.publishes_nacked == 1


async def test_a_message_over_the_limit_is_refused_alone(bus: RabbitMQBus) -> None:
    big = publish(bus, "big", body=bytes(16 * MIB + 1))
    assert await outcomes(big, *(publish(bus, f"m{n}") for n in range(200))) == [
        PublishNackedError,
        *[None] * 200,
    ]
    await publish(bus, "large", body=bytes(8 * MIB))


@pytest.mark.parametrize(
    "bad",
    [
        message("m", headers={"summary": "x" * 1_000_000}),
        message("m", headers={"n" * 256: 1}),
        message("m", headers={"big": 2**63}),
        message("m", headers={"list": [1]}),
        message("i" * 256),
        message("m", app_id="\udc80"),
    ],
    ids=["long headers", "long name", "big number", "no scalar", "long id", "no text"],
)
async def test_what_amqp_has_no_form_for_is_refused_and_costs_no_connection(
    bus: RabbitMQBus, bad: object
) -> None:
    with pytest.raises(PublishNackedError):
        await bus.publish(bad, exchange=IN, routing_key=WORK, mandatory=True, timeout_s=5.0)  # type: ignore[arg-type]  # as it says
    await publish(bus, "good")
    assert bus.stats.connections_lost == 0


async def test_a_user_without_the_right_to_publish_is_told(
    bus: RabbitMQBus, scratch: Scratch, private_node: PrivateNode
) -> None:
    private_node.management.add_user("reader", "reader")
    private_node.management.set_permissions("reader", read=".*")
    reader = scratch.bus(private_node.amqp_url(user="reader"))
    with pytest.raises(AccessRefusedError, match="publishing"):
        await publish(reader, "m")
    assert await drain(bus) == []
    private_node.management.delete_user("reader")


async def test_a_memory_alarm_blocks_publishes_until_their_time_is_up(
    bus: RabbitMQBus, private_node: PrivateNode
) -> None:
    await publish(bus, "before")
    await asyncio.to_thread(private_node.set_memory_alarm, True)
    began = asyncio.get_running_loop().time()
    with pytest.raises(PublishBlockedError):
        await publish(bus, "unknown", timeout_s=0.5)
    assert asyncio.get_running_loop().time() - began >= 0.5
    assert bus.is_blocked
    for n in range(3):
        with pytest.raises(PublishBlockedError):
            await publish(bus, f"never sent {n}", timeout_s=0.1)
    # Everything else goes on.
    await bus.declare(Topology((Exchange("ktrdr.other", ExchangeKind.FANOUT),)))
    assert await drain(bus) == ["before"]
    patient = asyncio.create_task(publish(bus, "patient"))
    await asyncio.to_thread(private_node.set_memory_alarm, False)
    await patient
    assert not bus.is_blocked
    assert set(await drain(bus)) <= {"unknown", "patient"}
    assert bus.stats.publishes_timed_out == 4
    assert bus.stats.connections_lost == 0


async def test_no_answer_in_time_leaves_it_unknown(scratch: Scratch) -> None:
    with Proxy(scratch.url) as proxy:
        bus = await scratch.working_bus(proxy.url)
        await publish(bus, "before")
        proxy.freeze()
        with pytest.raises(PublishTimeoutError) as raised:
            await publish(bus, "m", timeout_s=0.3)
        assert not isinstance(raised.value, PublishBlockedError)
        proxy.restore()
        await publish(bus, "m")
        assert set(await drain(bus)) == {"before", "m"}


async def test_what_is_under_way_when_the_connection_goes_is_unknown(scratch: Scratch) -> None:
    with Proxy(scratch.url) as proxy:
        bus = await scratch.working_bus(proxy.url)
        await publish(bus, "before")
        proxy.delay(0.5)
        under_way = [asyncio.create_task(publish(bus, f"m{n}")) for n in range(300)]
        await asyncio.sleep(0)
        proxy.reset()
        proxy.delay(0.0)
        for done in await asyncio.gather(*under_way, return_exceptions=True):
            assert done is None or type(done) is BusUnavailableError
        await publish(bus, "after")
        assert bus.stats.connections_lost >= 1


async def test_a_publish_while_there_is_no_connection_waits_for_one(scratch: Scratch) -> None:
    with Proxy(scratch.url) as proxy:
        bus = await scratch.working_bus(proxy.url)
        proxy.refuse()
        proxy.reset()
        await eventually(lambda: not bus.is_connected, "the loss is noticed")
        with pytest.raises(BusUnavailableError, match="There is no connection to"):
            await publish(bus, "m", timeout_s=0.5)
        waiting = asyncio.create_task(publish(bus, "patient"))
        proxy.restore()
        await waiting
        assert await drain(bus) == ["patient"]


async def test_a_publish_that_is_cancelled_stops_nothing_else(bus: RabbitMQBus) -> None:
    await publish(bus, "before")
    others = [asyncio.create_task(publish(bus, f"m{n}")) for n in range(50)]
    given_up = [asyncio.create_task(publish(bus, "given up")) for _ in range(10)]
    await asyncio.sleep(0.001)
    for task in given_up:
        task.cancel()
    await asyncio.gather(*others)
    await asyncio.wait(given_up)
    assert all(task.cancelled() or task.exception() is None for task in given_up)
    await publish(bus, "given up")
    assert set(await drain(bus)) == {"before", "given up", *(f"m{n}" for n in range(50))}


async def test_a_closed_bus_fails_what_is_under_way(scratch: Scratch) -> None:
    with Proxy(scratch.url) as proxy:
        bus = await scratch.working_bus(proxy.url)
        await publish(bus, "before")
        proxy.delay(0.2)
        under_way = [asyncio.create_task(publish(bus, f"m{n}")) for n in range(300)]
        await asyncio.sleep(0)
        await bus.close()
        results = await asyncio.gather(*under_way, return_exceptions=True)
        assert {type(result) for result in results} <= {BusClosedError, type(None)}
