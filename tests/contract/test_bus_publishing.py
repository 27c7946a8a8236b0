"""Publishing: where messages go, and what the confirm means."""

import asyncio
from datetime import UTC, datetime

import pytest

from ktrdr.bus.topology import ExchangeKind, QueueKind
from ktrdr.errors import BusError, UnroutableError
from ktrdr.events.message import Message
from tests.contract.client import Client, message, receive
from tests.contract.harness import BrokerHarness


async def test_a_direct_exchange_goes_by_the_whole_key(client: Client) -> None:
    await client.declare_exchange("in", ExchangeKind.DIRECT)
    for queue, key in (("one", "a.b"), ("two", "a.*"), ("three", "a.b")):
        await client.declare_queue(queue)
        await client.bind("in", queue, key)
    await client.publish_all("m", key="a.b")
    assert [await client.drain_texts(queue) for queue in ("one", "two", "three")] == [["m"], [], ["m"]]


async def test_a_fanout_exchange_ignores_the_key(client: Client) -> None:
    await client.declare_exchange("in", ExchangeKind.FANOUT)
    for queue in ("one", "two"):
        await client.declare_queue(queue)
        await client.bind("in", queue, "whatever")
    await client.publish_all("m", key="something else")
    assert [await client.drain_texts(queue) for queue in ("one", "two")] == [["m"], ["m"]]


TOPIC_CASES = [
    ("training.*.progress", "training.op-1.progress", True),
    ("training.*.progress", "training.progress", False),
    ("training.*.progress", "training.op-1.x.progress", False),
    ("training.*", "training.", True),
    ("training.*", "training", False),
    ("training.#", "training", True),
    ("training.#", "training.a.b.c", True),
    ("training.#", "trainings.a", False),
    ("#", "", True),
    ("#", "a.b.c", True),
    ("*", "", False),
    ("*", "a", True),
    ("*", "a.b", False),
    ("", "", True),
    ("", "a", False),
    ("#.failed", "failed", True),
    ("#.failed", "a.b.failed", True),
    ("#.failed", "a.failed.b", False),
    ("a.#.b.#.c", "a.b.c", True),
    ("a.#.b.#.c", "a.x.b.y.b.z.c", True),
    ("a.#.b.#.c", "a.c.b", False),
    ("#.*", "a", True),
    ("#.*", "", False),
    ("*.#", "a.b.c", True),
    ("a..b", "a..b", True),
    ("a.*.b", "a..b", True),
    ("A", "a", False),
]


@pytest.mark.parametrize(("pattern", "key", "matches"), TOPIC_CASES)
async def test_a_topic_exchange_matches_words(client: Client, pattern: str, key: str, matches: bool) -> None:
    await client.declare_exchange("in", ExchangeKind.TOPIC)
    await client.declare_queue("work")
    await client.bind("in", "work", pattern)
    if matches:
        await client.publish(message("m"), key=key)
    else:
        with pytest.raises(UnroutableError):
            await client.publish(message("m"), key=key)


async def test_a_queue_that_matches_by_several_bindings_gets_the_message_once(client: Client) -> None:
    await client.declare_exchange("in", ExchangeKind.TOPIC)
    await client.declare_queue("work")
    for key in ("#", "a.*", "a.b"):
        await client.bind("in", "work", key)
    await client.publish_all("m", key="a.b")
    assert await client.drain_texts("work") == ["m"]


async def test_a_mandatory_message_that_no_queue_takes_is_an_error(client: Client) -> None:
    await client.declare_bound_queue("work")
    with pytest.raises(UnroutableError):
        await client.publish(message("m"), key="nobody", mandatory=True)


async def test_a_message_that_is_not_mandatory_may_go_nowhere(client: Client) -> None:
    await client.declare_bound_queue("work")
    await client.publish(message("m"), key="nobody", mandatory=False)
    assert await client.drain_texts("work") == []


async def test_an_exchange_that_was_not_declared_is_an_error(client: Client) -> None:
    with pytest.raises(BusError):
        await client.publish(message("m"), exchange="nowhere", mandatory=False)


async def test_after_a_failed_publish_the_next_one_works(client: Client) -> None:
    await client.declare_bound_queue("work")
    with pytest.raises(BusError):
        await client.publish(message("a"), exchange="nowhere")
    with pytest.raises(UnroutableError):
        await client.publish(message("b"), key="nobody")
    await client.publish_all("c")
    assert await client.drain_texts("work") == ["c"]


async def test_a_message_over_the_brokers_limit_is_an_error_and_the_next_one_works(
    harness: BrokerHarness, client: Client
) -> None:
    await client.declare_bound_queue("work")
    with pytest.raises(BusError):
        await client.publish(Message(bytes(harness.max_message_bytes + 1), "big", "test.message.v1"))
    await client.publish_all("small")
    assert await client.drain_texts("work") == ["small"]


async def test_a_message_arrives_as_it_was_sent(client: Client) -> None:
    sent = Message(
        body=bytes(range(256)),
        message_id="0193-id",
        type="test.message.v1",
        correlation_id="op-1",
        app_id="backend@host",
        timestamp=datetime(2026, 3, 1, 12, 30, 15, tzinfo=UTC),
        content_type="application/msgpack",
        content_encoding="zstd",
        expiration_s=60.0,
        persistent=False,
        headers={"summary": "attempt 1 · ελ", "attempt": 3, "ratio": 0.5, "done": True, "big": 2**40},
    )
    await client.declare_bound_queue("work")
    await client.publish(sent)
    delivery = await receive(await client.consume())
    assert delivery.message == sent
    assert delivery.queue == client.name("work")
    assert delivery.redelivered is False


async def test_a_message_with_nothing_but_the_required_properties_arrives_too(client: Client) -> None:
    sent = message("m")
    await client.declare_bound_queue("work")
    await client.publish(sent)
    assert (await receive(await client.consume())).message == sent


async def test_what_the_publisher_does_to_a_message_later_changes_nothing(client: Client) -> None:
    headers: dict[str, str | int | float | bool] = {"attempt": 1}
    await client.declare_bound_queue("work")
    await client.publish(message("m", headers=headers))
    headers["attempt"] = 2
    assert (await client.drain("work"))[0].message.headers == {"attempt": 1}


async def test_a_confirmed_message_is_in_every_queue(client: Client, other: Client) -> None:
    await client.declare_exchange("in", ExchangeKind.FANOUT)
    for queue in ("one", "two"):
        await client.declare_queue(queue)
        await client.bind("in", queue)
    await client.publish_all("m")
    await client.close()
    assert [await other.drain_texts(queue) for queue in ("one", "two")] == [["m"], ["m"]]


async def test_many_publishers_at_once_all_get_their_own_answer(client: Client) -> None:
    await client.declare_bound_queue("work")
    outcomes = await asyncio.gather(
        *(client.publish(message(f"m{n}"), key="work" if n % 3 else "nobody") for n in range(60)),
        return_exceptions=True,
    )
    assert [isinstance(outcome, UnroutableError) for outcome in outcomes] == [n % 3 == 0 for n in range(60)]
    assert sorted(await client.drain_texts("work")) == sorted(f"m{n}" for n in range(60) if n % 3)


async def test_an_event_may_be_published_twice_under_one_id(client: Client) -> None:
    await client.declare_bound_queue("work")
    await asyncio.gather(client.publish(message("again")), client.publish(message("again")))
    assert await client.drain_texts("work") == ["again", "again"]


async def test_a_full_bounded_queue_drops_its_oldest(client: Client) -> None:
    await client.declare_bound_queue("work", QueueKind.CLASSIC, max_length=3)
    await client.publish_all(*"abcdef")
    await client.harness.be_quiet()
    assert await client.drain_texts("work") == ["d", "e", "f"]


async def test_a_bounded_queue_counts_only_what_nobody_holds(client: Client) -> None:
    await client.declare_bound_queue("work", QueueKind.CLASSIC, max_length=2)
    await client.publish_all("held")
    held = await receive(await client.consume(prefetch=1))
    await client.publish_all("a", "b")
    assert await client.drain_texts("work") == ["a", "b"]
    await held.ack()


async def test_what_a_bounded_queue_drops_goes_to_its_dead_letter_exchange(client: Client) -> None:
    await client.declare_graveyard()
    await client.declare_bound_queue("work", QueueKind.CLASSIC, max_length=1, dead_letter_exchange="dead")
    await client.publish_all("old", "new")
    (grave,) = await client.drain("graves")
    assert grave.message.body == b"old"
    assert grave.message.headers["x-ktrdr-reason"] == "maxlen"
    assert await client.drain_texts("work") == ["new"]
