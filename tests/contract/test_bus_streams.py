"""Streams: logs that each consumer reads by itself."""

import pytest

from ktrdr.bus.topology import ExchangeKind, QueueKind
from ktrdr.errors import BusError
from tests.contract.client import Client, message, receive, receive_texts


@pytest.fixture
async def stream(client: Client) -> None:
    await client.declare_exchange("in", ExchangeKind.TOPIC)
    await client.declare_queue("log", QueueKind.STREAM, max_length=1000)
    await client.bind("in", "log", "#")


@pytest.mark.usefixtures("stream")
class TestAStream:
    async def test_gives_each_consumer_everything(self, client: Client, other: Client) -> None:
        one = await client.consume("log", tag="one")
        two = await other.consume("log", tag="two")
        await client.publish_all("a", "b", "c")
        assert await receive_texts(one, 3) == ["a", "b", "c"]
        assert await receive_texts(two, 3) == ["a", "b", "c"]

    async def test_gives_a_consumer_what_comes_after_it_subscribed(self, client: Client) -> None:
        await client.publish_all("before")
        consumer = await client.consume("log")
        await client.publish_all("after")
        assert await receive_texts(consumer, 1) == ["after"]
        assert await client.next_or_none(consumer) is None

    async def test_sends_no_more_than_the_prefetch(self, client: Client) -> None:
        consumer = await client.consume("log", prefetch=2)
        await client.publish_all(*"abcde")
        first, second = await receive(consumer), await receive(consumer)
        assert await client.next_or_none(consumer) is None
        await first.ack()
        await second.ack()
        assert await receive_texts(consumer, 3) == ["c", "d", "e"]

    @pytest.mark.parametrize("way", ["ack", "nack", "reject"])
    async def test_delivers_a_message_once_however_it_is_settled(
        self, client: Client, other: Client, way: str
    ) -> None:
        consumer = await client.consume("log", prefetch=1)
        bystander = await other.consume("log", prefetch=5)
        await client.publish_all("a", "b")
        delivery = await receive(consumer)
        assert delivery.redelivered is False
        await (delivery.reject("bad") if way == "reject" else getattr(delivery, way)())
        assert await receive_texts(consumer, 1) == ["b"]
        assert await receive_texts(bystander, 2) == ["a", "b"]

    async def test_goes_on_for_the_others_when_a_reader_leaves(self, client: Client, other: Client) -> None:
        leaving = await client.consume("log", tag="leaving", prefetch=1)
        staying = await other.consume("log", tag="staying")
        await client.publish_all("a", "b")
        await receive(leaving)
        await leaving.cancel()
        with pytest.raises(StopAsyncIteration):
            await anext(leaving)
        await client.close()
        await other.publish_all("c")
        assert await receive_texts(staying, 3) == ["a", "b", "c"]

    async def test_counts_as_a_queue_for_a_mandatory_message(self, client: Client) -> None:
        await client.publish(message("m"), mandatory=True)

    async def test_cannot_be_read_message_by_message(self, client: Client) -> None:
        with pytest.raises(BusError):
            await client.bus.get(client.name("log"))
