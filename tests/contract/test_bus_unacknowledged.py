"""Consuming what may be lost: the queue forgets it as it sends it."""

import asyncio
from collections.abc import Callable

import pytest

from ktrdr.bus.dead_letters import REASON_HEADER
from ktrdr.bus.topology import ExchangeKind, QueueKind
from ktrdr.errors import BusError
from tests.contract.client import Client, message, receive, receive_texts, text


async def test_it_comes_in_order_and_need_not_be_settled(client: Client, other: Client) -> None:
    await client.declare_bound_queue("work")
    consumer = await client.consume(prefetch=10, acknowledge=False)
    for letter in "abcdefghijklmnopqrstuvwxyz":
        await client.publish_all(letter)
        assert await receive_texts(consumer, 1, ack=False) == [letter]
    await client.close()
    assert await other.drain_texts("work") == []


async def test_of_what_nobody_reads_the_newest_stay(client: Client) -> None:
    await client.declare_bound_queue("work")
    consumer = await client.consume(prefetch=3, acknowledge=False)
    await client.publish_all(*"abcdef")
    await client.harness.be_quiet()
    assert await receive_texts(consumer, 3, ack=False) == ["d", "e", "f"]
    assert await client.next_or_none(consumer) is None


@pytest.mark.parametrize("settle", [lambda held: held.ack(), lambda held: held.nack()], ids=["ack", "nack"])
async def test_settling_it_does_nothing(client: Client, settle: Callable[..., object]) -> None:
    await client.declare_bound_queue("work")
    consumer = await client.consume(acknowledge=False)
    await client.publish_all("a", "b")
    first = await receive(consumer)
    await settle(first)  # type: ignore[misc]  # a coroutine
    assert text(await receive(consumer)) == "b"
    assert await client.next_or_none(consumer) is None
    with pytest.raises(BusError, match="settled before"):
        await first.ack()


async def test_what_is_rejected_is_dead_lettered_with_its_reason(client: Client, other: Client) -> None:
    await client.declare_graveyard()
    await client.declare_bound_queue("work", QueueKind.CLASSIC, exclusive=True, reject_exchange="dead")
    consumer = await client.consume(acknowledge=False)
    await client.publish_all("bad", "good")
    await (await receive(consumer)).reject("cannot be read")
    assert text(await receive(consumer)) == "good"
    (letter,) = await other.drain("graves")
    assert (text(letter), letter.message.headers[REASON_HEADER]) == ("bad", "cannot be read")


async def test_what_a_cancelled_consumer_had_not_handed_out_is_gone(client: Client, other: Client) -> None:
    await client.declare_bound_queue("work")
    consumer = await client.consume(prefetch=3, acknowledge=False)
    await client.publish_all(*"abc")
    await client.harness.be_quiet()
    held = await receive(consumer)
    await consumer.cancel()
    await held.ack()
    await client.publish_all("d")
    with pytest.raises(StopAsyncIteration):
        await anext(consumer)
    assert await other.drain_texts("work") == ["d"]


async def test_a_connection_that_consumed_so_consumes_otherwise_too(client: Client) -> None:
    await client.declare_bound_queue("work")
    await (await client.consume(tag="one", acknowledge=False)).cancel()
    consumer = await client.consume(tag="two", prefetch=1)
    await client.publish_all("a", "b")
    first = await receive(consumer)
    assert await client.next_or_none(consumer) is None
    await first.ack()
    assert text(await receive(consumer)) == "b"


async def test_it_ends_with_the_bus(client: Client) -> None:
    await client.declare_bound_queue("work")
    consumer = await client.consume(acknowledge=False)
    waiting = asyncio.ensure_future(receive(consumer))
    await client.harness.be_quiet()
    await client.close()
    with pytest.raises(StopAsyncIteration):
        await waiting


async def test_each_queue_of_a_topic_gets_every_message(client: Client, other: Client) -> None:
    await client.declare_exchange("news", ExchangeKind.TOPIC)
    consumers = []
    for each, name in ((client, "one"), (other, "two")):
        await each.declare_exchange("news", ExchangeKind.TOPIC)
        await each.declare_queue(name, QueueKind.CLASSIC, exclusive=True, max_length=5)
        await each.bind("news", name, "training.*.progress")
        consumers.append(await each.consume(name, acknowledge=False))
    for key in ("training.op-1.progress", "training.op-1.failed"):
        await client.publish(message(key), exchange="news", key=key, mandatory=False)
    for consumer in consumers:
        assert await receive_texts(consumer, 1, ack=False) == ["training.op-1.progress"]
        assert await client.next_or_none(consumer) is None


async def test_a_stream_has_to_be_acknowledged(client: Client) -> None:
    await client.declare_bound_queue("work", QueueKind.STREAM)
    with pytest.raises(BusError, match="has to be acknowledged"):
        await client.consume(acknowledge=False)
    consumer = await client.consume()
    await client.publish_all("a")
    assert text(await receive(consumer)) == "a"
