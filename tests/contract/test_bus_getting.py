"""Single messages: taken without a subscription, and put into a queue by its name."""

import pytest

from ktrdr.bus.topology import DEFAULT_EXCHANGE, QueueKind
from ktrdr.errors import BusError, UnroutableError
from tests.contract.client import PATIENCE_S, Client, message, text

pytestmark = pytest.mark.parametrize("kind", [QueueKind.QUORUM, QueueKind.CLASSIC])


async def get(client: Client, queue: str = "work") -> str | None:
    delivery = await client.bus.get(client.name(queue))
    return None if delivery is None else text(delivery)


async def test_messages_are_got_one_by_one_until_none_is_ready(client: Client, kind: QueueKind) -> None:
    await client.declare_bound_queue("work", kind)
    await client.publish_all("a", "b", "c")
    assert [await get(client) for _ in range(4)] == ["a", "b", "c", None]


async def test_what_one_has_got_no_other_gets(client: Client, other: Client, kind: QueueKind) -> None:
    await client.declare_bound_queue("work", kind)
    await client.publish_all("a", "b")
    assert await get(client) == "a"
    assert await get(other) == "b"
    assert await get(other) is None


async def test_what_was_got_is_settled_as_any_delivery(
    client: Client, other: Client, kind: QueueKind
) -> None:
    await client.declare_graveyard()
    await client.declare_bound_queue("work", kind, dead_letter_exchange="dead")
    await client.publish_all("acked", "nacked", "rejected", "held")
    deliveries = [await client.bus.get(client.name("work")) for _ in range(4)]
    acked, nacked, rejected, held = [each for each in deliveries if each is not None]
    assert (acked.queue, acked.redelivered) == (client.name("work"), False)
    await acked.ack()
    await rejected.reject("cannot be read")
    await nacked.nack()
    again = await client.bus.get(client.name("work"))
    assert again is not None
    assert (text(again), again.redelivered) == ("nacked", True)
    await again.ack()
    assert text(held) == "held"
    await client.close()
    assert await other.drain_texts("work") == ["held"]
    assert await other.drain_texts("graves") == ["rejected"]


async def test_getting_from_a_queue_that_is_not_there_is_an_error(client: Client, kind: QueueKind) -> None:
    with pytest.raises(BusError):
        await client.bus.get(client.name("nowhere"))
    await client.declare_bound_queue("work", kind)
    await client.publish_all("a")
    assert await get(client) == "a"


async def test_getting_goes_on_beside_a_consumer(client: Client, other: Client, kind: QueueKind) -> None:
    await client.declare_bound_queue("work", kind)
    consumer = await other.consume(prefetch=1)
    await client.publish_all("a", "b")
    assert await get(client) in {"a", "b"}
    await consumer.cancel()


async def test_the_default_exchange_takes_a_message_to_the_queue_of_that_name(
    client: Client, kind: QueueKind
) -> None:
    await client.declare_queue("work", kind)
    where = {"exchange": DEFAULT_EXCHANGE, "mandatory": True, "timeout_s": PATIENCE_S}
    await client.bus.publish(message("a"), routing_key=client.name("work"), **where)  # type: ignore[arg-type]  # as named
    assert await client.drain_texts("work") == ["a"]
    with pytest.raises(UnroutableError):
        await client.bus.publish(message("b"), routing_key=client.name("nowhere"), **where)  # type: ignore[arg-type]  # as named
