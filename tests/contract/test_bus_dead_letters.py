"""Where messages go that nobody acknowledges."""

import pytest

from ktrdr.bus.dead_letters import FROM_QUEUE_HEADER, REASON_HEADER
from ktrdr.bus.topology import ExchangeKind, QueueKind
from tests.contract.client import Client, message, receive, text
from tests.contract.harness import BrokerHarness


async def test_a_rejected_message_is_dead_lettered_with_the_reason(client: Client) -> None:
    await client.declare_graveyard()
    await client.declare_bound_queue("work", dead_letter_exchange="dead")
    sent = message("bad", headers={"summary": "said"}, correlation_id="op-1")
    await client.publish(sent)
    await (await receive(await client.consume())).reject("Invalid event: attempt is missing")
    (grave,) = await client.drain("graves")
    assert grave.message.body == sent.body
    assert (grave.message.message_id, grave.message.type) == (sent.message_id, sent.type)
    assert grave.message.correlation_id == "op-1"
    assert grave.message.headers["summary"] == "said"
    assert grave.message.headers[REASON_HEADER] == "Invalid event: attempt is missing"
    assert grave.message.headers[FROM_QUEUE_HEADER] == client.name("work")


async def test_a_reason_of_any_length_fits_the_header(client: Client) -> None:
    await client.declare_graveyard()
    await client.declare_bound_queue("work", dead_letter_exchange="dead")
    await client.publish_all("bad")
    await (await receive(await client.consume())).reject("why\nnot? " + "x" * 300_000)
    (grave,) = await client.drain("graves")
    reason = str(grave.message.headers[REASON_HEADER])
    assert reason.startswith("why not? xxx")
    assert len(reason) <= 500


async def test_a_rejected_message_does_not_come_back(client: Client) -> None:
    await client.declare_graveyard()
    await client.declare_bound_queue("work", dead_letter_exchange="dead")
    await client.publish_all("bad", "good")
    consumer = await client.consume(prefetch=1)
    await (await receive(consumer)).reject("bad")
    assert text(await receive(consumer)) == "good"


async def test_a_rejected_message_keeps_its_routing_key(client: Client) -> None:
    await client.declare_exchange("dead", ExchangeKind.TOPIC)
    for lane in ("any", "gpu"):
        await client.declare_queue(f"graves-{lane}")
        await client.bind("dead", f"graves-{lane}", lane)
        await client.declare_bound_queue(lane, dead_letter_exchange="dead")
    await client.publish_all("m", key="gpu")
    await (await receive(await client.consume("gpu"))).reject("bad")
    assert await client.drain_texts("graves-gpu") == ["m"]
    assert await client.drain_texts("graves-any") == []


async def test_a_queue_may_bury_the_rejected_and_forget_the_rest(client: Client) -> None:
    await client.declare_graveyard()
    await client.declare_bound_queue("work", QueueKind.CLASSIC, max_length=1, reject_exchange="dead")
    await client.publish_all("stale", "unreadable")
    await (await receive(await client.consume())).reject("no msgpack")
    assert await client.drain_texts("graves") == ["unreadable"]


async def test_without_an_exchange_for_it_a_rejected_message_is_gone(client: Client) -> None:
    await client.declare_bound_queue("work")
    await client.publish_all("bad")
    consumer = await client.consume()
    await (await receive(consumer)).reject("bad")
    assert await client.next_or_none(consumer) is None


@pytest.mark.parametrize("declared", [False, True])
async def test_a_dead_letter_that_no_queue_takes_stops_nobody(client: Client, declared: bool) -> None:
    if declared:
        await client.declare_exchange("dead", ExchangeKind.TOPIC)
    await client.declare_bound_queue("work", dead_letter_exchange="dead")
    await client.publish_all("bad", "good")
    consumer = await client.consume(prefetch=1)
    await (await receive(consumer)).reject("bad")
    assert text(await receive(consumer)) == "good"


async def test_a_rejected_dead_letter_tells_of_its_last_death(client: Client) -> None:
    await client.declare_graveyard()
    await client.declare_exchange("limbo", ExchangeKind.FANOUT)
    await client.declare_queue("second", dead_letter_exchange="dead")
    await client.bind("limbo", "second")
    await client.declare_bound_queue("work", dead_letter_exchange="limbo")
    await client.publish_all("m")
    await (await receive(await client.consume("work"))).reject("first")
    await (await receive(await client.consume("second", tag="second"))).reject("again")
    (grave,) = await client.drain("graves")
    assert grave.message.headers[REASON_HEADER] == "again"
    assert grave.message.headers[FROM_QUEUE_HEADER] == client.name("second")


# --- given back too often ---


async def test_a_message_that_kills_each_consumer_ends_as_a_dead_letter(
    harness: BrokerHarness, client: Client
) -> None:
    await client.declare_graveyard()
    await client.declare_bound_queue("work", delivery_limit=2, dead_letter_exchange="dead")
    await client.publish_all("poison")
    for redelivered in (False, True, True):
        victim = Client(harness, await harness.connect())
        delivery = await receive(await victim.consume(prefetch=1))
        assert delivery.redelivered is redelivered
        await victim.close()
    (grave,) = await client.drain("graves")
    assert text(grave) == "poison"
    assert grave.message.headers[REASON_HEADER] == "delivery_limit"
    assert grave.message.headers[FROM_QUEUE_HEADER] == client.name("work")
    assert await client.drain_texts("work") == []


async def test_a_lost_connection_with_several_consumers_counts_once(
    harness: BrokerHarness, client: Client
) -> None:
    gone = Client(harness, await harness.connect())
    await gone.declare_bound_queue("work", delivery_limit=1)
    await gone.publish_all("m")
    busy = await gone.consume(tag="busy", prefetch=1)
    await receive(busy)
    await gone.consume(tag="idle", prefetch=1)
    await gone.close()
    assert await client.drain_texts("work") == ["m"]


async def test_giving_back_counts_where_the_broker_says_so(harness: BrokerHarness, client: Client) -> None:
    await client.declare_graveyard()
    await client.declare_bound_queue("work", delivery_limit=1, dead_letter_exchange="dead")
    await client.publish_all("not now")
    consumer = await client.consume(prefetch=1)
    for _ in range(2):
        await (await receive(consumer)).nack()
    came_back = await client.next_or_none(consumer)
    assert (came_back is None) is harness.nack_counts_towards_the_delivery_limit


async def test_without_a_limit_a_message_comes_back_for_ever(client: Client) -> None:
    await client.declare_bound_queue("work", QueueKind.CLASSIC)
    await client.publish_all("m")
    consumer = await client.consume(prefetch=1)
    for _ in range(30):
        await (await receive(consumer)).nack()
    assert text(await receive(consumer)) == "m"


# --- expired ---


async def test_a_message_that_waits_too_long_is_dead_lettered(client: Client) -> None:
    await client.declare_graveyard()
    await client.declare_bound_queue("work", dead_letter_exchange="dead")
    graves = await client.consume("graves", tag="graves")
    await client.publish(message("late", expiration_s=0.2))
    await client.harness.pass_time(0.5)
    grave = await receive(graves)
    assert text(grave) == "late"
    assert grave.message.headers[REASON_HEADER] == "expired"
    assert grave.message.headers[FROM_QUEUE_HEADER] == client.name("work")
    assert grave.message.expiration_s is None
    assert await client.drain_texts("work") == []


async def test_an_expired_message_is_never_delivered(client: Client) -> None:
    await client.declare_bound_queue("work")
    await client.publish(message("late", expiration_s=0.2))
    await client.publish(message("patient"))
    await client.harness.pass_time(0.5)
    assert await client.drain_texts("work") == ["patient"]


async def test_a_message_that_a_consumer_holds_does_not_expire(client: Client) -> None:
    await client.declare_graveyard()
    await client.declare_bound_queue("work", dead_letter_exchange="dead")
    await client.publish(message("held", expiration_s=0.2))
    delivery = await receive(await client.consume())
    await client.harness.pass_time(0.5)
    await delivery.ack()
    assert await client.drain_texts("graves") == []


async def test_a_message_that_is_given_back_too_late_expires(client: Client) -> None:
    await client.declare_graveyard()
    await client.declare_bound_queue("work", dead_letter_exchange="dead")
    await client.publish(message("late", expiration_s=0.2))
    consumer = await client.consume()
    delivery = await receive(consumer)
    await client.harness.pass_time(0.5)
    await delivery.nack()
    assert await client.next_or_none(consumer) is None
    assert await client.drain_texts("graves") == ["late"]
