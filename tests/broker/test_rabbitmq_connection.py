"""Connections that are refused, lost, and made again."""

import asyncio
import gc
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
import pytest_asyncio

from ktrdr.bus.rabbitmq import RabbitMQBus
from ktrdr.bus.rabbitmq_connection import ConnectionLimits
from ktrdr.errors import AccessRefusedError, BusClosedError, BusError, BusUnavailableError
from tests.broker.certificates import Certificates
from tests.broker.node import PrivateNode
from tests.broker.proxy import Proxy
from tests.broker.rabbitmq_cases import (
    PATIENCE_S,
    WORK,
    WORK_TOPOLOGY,
    Scratch,
    drain,
    eventually,
    publish,
    scratch_on,
)

pytestmark = [pytest.mark.broker, pytest.mark.xdist_group("rabbitmq")]


@pytest_asyncio.fixture
async def scratch(private_node: PrivateNode) -> AsyncIterator[Scratch]:
    async with scratch_on(private_node) as made:
        yield made


async def test_people_see_who_is_connected(scratch: Scratch, private_node: PrivateNode) -> None:
    bus = scratch.bus(name=f"host-agent@{scratch.prefix}")
    await bus.wait_until_connected(PATIENCE_S)
    wanted = {f"host-agent@{scratch.prefix} {role}" for role in ("publisher", "consumer")}

    def shown() -> set[tuple[str, str]]:
        properties = [each.get("client_properties", {}) for each in private_node.management.connections()]
        return {(each.get("connection_name", ""), each.get("product", "")) for each in properties}

    await eventually(lambda: {(each, "ktrdr") for each in wanted} <= shown(), "the management API shows both")


async def test_a_wrong_password_is_told_at_once(scratch: Scratch, private_node: PrivateNode) -> None:
    bus = scratch.bus(private_node.amqp_url(password="wrong"))
    with pytest.raises(AccessRefusedError, match="does not let 'guest' in") as raised:
        await bus.wait_until_connected(PATIENCE_S)
    assert raised.value.fix is not None
    assert "wrong" not in str(raised.value)
    with pytest.raises(AccessRefusedError):
        await publish(bus, "m")
    with pytest.raises(AccessRefusedError):
        await bus.consume(WORK, prefetch=1, consumer_tag="c")


async def test_a_virtual_host_that_is_not_there_is_told(scratch: Scratch, private_node: PrivateNode) -> None:
    bus = scratch.bus(private_node.amqp_url(vhost="no/where"))
    with pytest.raises(AccessRefusedError, match="virtual host 'no/where'"):
        await bus.wait_until_connected(PATIENCE_S)


async def test_another_virtual_host_can_be_used(scratch: Scratch, private_node: PrivateNode) -> None:
    private_node.management.add_vhost("a/b c")
    bus = await scratch.working_bus(private_node.amqp_url(vhost="a/b c"))
    await publish(bus, "m")
    assert await drain(bus) == ["m"]
    await bus.close()
    private_node.management.delete_vhost("a/b c")


async def test_where_nothing_listens_everything_fails_in_time_and_says_why(scratch: Scratch) -> None:
    bus = scratch.bus("amqp://127.0.0.1:1", limits=ConnectionLimits(request_s=0.3))
    with pytest.raises(BusUnavailableError, match=r"127\.0\.0\.1:1.*refused|Connect call failed"):
        await bus.wait_until_connected(0.3)
    with pytest.raises(BusUnavailableError, match="There is no connection to"):
        await publish(bus, "m", timeout_s=0.2)
    with pytest.raises(BusUnavailableError, match="There is no connection to"):
        await bus.consume(WORK, prefetch=1, consumer_tag="c")
    with pytest.raises(BusUnavailableError, match="There is no connection to"):
        await bus.get(WORK)


@pytest.mark.parametrize(
    "answer", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\x01\x00\x00\x00\x00\x00\x04\xff\xff\xff\xff\xce", b""]
)
async def test_something_else_that_listens_there_is_no_broker(scratch: Scratch, answer: bytes) -> None:
    async def respond(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(8)
        writer.write(answer)
        writer.close()

    async with await asyncio.start_server(respond, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        bus = scratch.bus(f"amqp://127.0.0.1:{port}")
        with pytest.raises(BusUnavailableError, match=f"There is no connection to guest@127.0.0.1:{port}"):
            await bus.wait_until_connected(1.0)
        await bus.close()


async def test_of_several_nodes_one_that_is_there_is_taken(scratch: Scratch) -> None:
    bus = await scratch.working_bus(f"amqp://127.0.0.1:1 {scratch.url}")
    await publish(bus, "m")
    assert await drain(bus) == ["m"]


async def test_a_bus_may_be_made_before_its_broker(scratch: Scratch, private_node: PrivateNode) -> None:
    await asyncio.to_thread(private_node.kill)
    bus = scratch.bus()
    waiting = asyncio.create_task(bus.wait_until_connected(PATIENCE_S))
    await asyncio.to_thread(private_node.start)
    await waiting
    assert bus.is_connected


class TestEncrypted:
    async def test_with_the_authority_named_in_the_url(
        self, scratch: Scratch, private_node: PrivateNode
    ) -> None:
        bus = await scratch.working_bus(f"{private_node.amqps_url()}?cafile={private_node.authority}")
        await publish(bus, "m", body=bytes(3_000_000))
        assert await drain(bus) == ["m"]

    async def test_not_with_an_authority_that_did_not_sign(
        self, scratch: Scratch, private_node: PrivateNode, tmp_path: Path
    ) -> None:
        other = Certificates.make(tmp_path).authority
        bus = scratch.bus(f"{private_node.amqps_url()}?cafile={other}")
        with pytest.raises(BusUnavailableError, match=r"certificate.*cafile="):
            await bus.wait_until_connected(3.0)

    async def test_not_with_the_authorities_of_the_system(
        self, scratch: Scratch, private_node: PrivateNode
    ) -> None:
        bus = scratch.bus(private_node.amqps_url())
        with pytest.raises(BusUnavailableError, match="certificate"):
            await bus.wait_until_connected(3.0)


@pytest.mark.fault
class TestLost:
    @pytest.mark.parametrize("way", ["reset", "finish"])
    async def test_by_a_cut_it_is_made_again_and_consumers_end(self, scratch: Scratch, way: str) -> None:
        with Proxy(scratch.url) as proxy:
            bus = await scratch.working_bus(proxy.url)
            await publish(bus, "a")
            await publish(bus, "b")
            consumer = await bus.consume(WORK, prefetch=1, consumer_tag="c")
            delivery = await anext(consumer)
            getattr(proxy, way)()
            with pytest.raises(StopAsyncIteration):
                await asyncio.wait_for(anext(consumer), PATIENCE_S)
            for settle in (delivery.ack, delivery.nack, lambda: delivery.reject("bad")):
                with pytest.raises(BusUnavailableError, match="comes again"):
                    await settle()
            await consumer.cancel()
            again = await bus.consume(WORK, prefetch=1, consumer_tag="c")
            redelivered = await asyncio.wait_for(anext(again), PATIENCE_S)
            assert (redelivered.message.message_id, redelivered.redelivered) == ("a", True)
            assert bus.stats.connections_lost == 2

    async def test_half_open_for_longer_than_the_heartbeat(self, scratch: Scratch) -> None:
        with Proxy(scratch.url) as proxy:
            bus = await scratch.working_bus(proxy.url)
            consumer = await bus.consume(WORK, prefetch=1, consumer_tag="c")
            proxy.freeze()
            with pytest.raises(StopAsyncIteration):
                await asyncio.wait_for(anext(consumer), PATIENCE_S)
            await eventually(lambda: not bus.is_connected, "both connections are found dead")
            proxy.finish()
            proxy.restore()
            await publish(bus, "m")
            assert await drain(bus) == ["m"]

    async def test_by_the_management_ui(self, scratch: Scratch, private_node: PrivateNode) -> None:
        bus = await scratch.working_bus(name=scratch.prefix)

        def ours() -> list[str]:
            return [
                each["name"]
                for each in private_node.management.connections()
                if each.get("user_provided_name", "").startswith(scratch.prefix)
            ]

        await eventually(lambda: len(ours()) == 2, "the management API shows both")
        for name in ours():
            await asyncio.to_thread(private_node.management.close_connection, name)
        await eventually(lambda: bus.stats.connections_lost == 2, "both losses are noticed")
        await publish(bus, "m")

    async def test_with_the_broker_no_confirmed_message_is_lost(
        self, scratch: Scratch, private_node: PrivateNode
    ) -> None:
        """Messages go through while the broker is killed twice."""
        bus = await scratch.working_bus()
        confirmed: set[str] = set()
        received: set[str] = set()
        stopping = asyncio.Event()

        async def produce(who: int) -> None:
            n = 0
            while not stopping.is_set():
                n += 1
                with suppress(BusError):  # unknown then, and not counted on
                    await publish(bus, f"{who}-{n}", timeout_s=5.0)
                    confirmed.add(f"{who}-{n}")
                await asyncio.sleep(0.002)

        async def work() -> None:
            while True:
                try:
                    consumer = await bus.consume(WORK, prefetch=20, consumer_tag="worker")
                    async for delivery in consumer:
                        received.add(delivery.message.message_id)
                        await delivery.ack()
                except BusError:
                    await asyncio.sleep(0.05)

        producing = [asyncio.create_task(produce(who)) for who in range(10)]
        working = asyncio.create_task(work())
        for _ in range(2):
            enough = len(confirmed) + 200
            await eventually(lambda enough=enough: len(confirmed) > enough, "messages are confirmed")  # type: ignore[misc]  # a default
            await asyncio.to_thread(private_node.kill)
            await eventually(lambda: not bus.is_connected, "the loss is noticed")
            await asyncio.to_thread(private_node.start)
        enough = len(confirmed) + 200
        await eventually(lambda: len(confirmed) > enough, "messages are confirmed again")
        stopping.set()
        await asyncio.gather(*producing)
        await eventually(lambda: confirmed <= received, "all that was confirmed is received")
        working.cancel()
        assert bus.stats.connections_lost >= 2  # each time at least the one that publishes


class TestClosing:
    async def _ends(self, bus: RabbitMQBus) -> None:
        async with asyncio.timeout(PATIENCE_S):
            await bus.close()
        with pytest.raises(BusClosedError):
            await publish(bus, "late")
        with pytest.raises(BusClosedError):
            await bus.consume(WORK, prefetch=1, consumer_tag="c")

    async def test_ends_when_nothing_ever_listened(self, scratch: Scratch) -> None:
        await self._ends(scratch.bus("amqp://127.0.0.1:1"))

    @pytest.mark.parametrize("is_encrypted", [False, True])
    async def test_ends_when_nothing_answers(
        self, scratch: Scratch, private_node: PrivateNode, is_encrypted: bool
    ) -> None:
        url = scratch.url
        if is_encrypted:
            url = f"{private_node.amqps_url()}?cafile={private_node.authority}"
        with Proxy(url) as proxy:
            bus = await scratch.working_bus(proxy.url)
            for _ in range(2):
                await bus.consume(WORK, prefetch=1, consumer_tag="c")
            await publish(bus, "m")
            proxy.freeze()
            await self._ends(bus)
            connecting = scratch.bus(proxy.url)
            with pytest.raises(BusUnavailableError, match="not answered yet"):
                await connecting.wait_until_connected(0.2)
            await self._ends(connecting)

    async def test_ends_when_the_broker_blocks(self, scratch: Scratch, private_node: PrivateNode) -> None:
        bus = await scratch.working_bus()
        await publish(bus, "m")
        await asyncio.to_thread(private_node.set_memory_alarm, True)
        under_way = asyncio.create_task(publish(bus, "m", body=bytes(8_000_000)))
        await eventually(lambda: bus.is_blocked, "the broker blocks")
        await self._ends(bus)
        with pytest.raises(BusClosedError):
            await under_way

    async def test_is_safe_to_ask_for_twice_at_once(self, scratch: Scratch) -> None:
        bus = await scratch.working_bus()
        await asyncio.gather(bus.close(), bus.close())
        await bus.close()


class TestNothingIsLeft:
    """Tasks and file descriptors are counted, before and after."""

    async def test_by_buses_that_were_closed(self, scratch: Scratch, private_node: PrivateNode) -> None:
        await self._use(scratch.bus())
        before = self._count()
        for _ in range(10):
            await self._use(scratch.bus())
        urls = ("amqp://127.0.0.1:1", private_node.amqp_url(password="wrong"), private_node.amqps_url())
        for url in urls:
            bus = scratch.bus(url)
            with pytest.raises(BusError):
                await bus.wait_until_connected(0.5)
            await bus.close()
        await self._expect(before)

    async def _use(self, bus: RabbitMQBus) -> None:
        await bus.wait_until_connected(PATIENCE_S)
        with pytest.raises(BusError):
            await bus.consume("ktrdr.nowhere", prefetch=1, consumer_tag="c")
        with pytest.raises(BusError):
            await publish(bus, "m", exchange="ktrdr.nowhere")
        await bus.close()

    async def test_by_connections_that_were_cut(self, scratch: Scratch) -> None:
        with Proxy(scratch.url) as proxy:
            bus = await scratch.working_bus(proxy.url)
            await publish(bus, "m")
            before = None
            for _ in range(20):
                consumer = await bus.consume(WORK, prefetch=5, consumer_tag="c")
                await publish(bus, "m")
                before = before or self._count()
                proxy.reset()
                async with asyncio.timeout(PATIENCE_S):
                    async for _ in consumer:
                        pass
                await bus.wait_until_connected(PATIENCE_S)
            await bus.consume(WORK, prefetch=5, consumer_tag="c")
            await publish(bus, "m")
            assert before is not None
            await self._expect(before)

    async def test_by_a_close_in_the_midst_of_everything(self, scratch: Scratch) -> None:
        with Proxy(scratch.url) as proxy:
            bus = await scratch.working_bus(proxy.url)
            await publish(bus, "m")
            consumers = [await bus.consume(WORK, prefetch=1, consumer_tag="c") for _ in range(3)]
            reading = asyncio.create_task(anext(consumers[2], None))
            proxy.freeze()
            under_way = [
                asyncio.create_task(each)
                for each in (
                    consumers[0].cancel(),
                    publish(bus, "m"),
                    publish(bus, "large", body=bytes(3_000_000)),
                    publish(bus, "doubtful", exchange="ktrdr.other"),
                    bus.consume(WORK, prefetch=1, consumer_tag="c"),
                    bus.get(WORK),
                    bus.declare(WORK_TOPOLOGY),
                )
            ]
            await asyncio.sleep(0.05)
            await bus.close()
            results = await asyncio.gather(*under_way, return_exceptions=True)
            assert all(result is None or isinstance(result, BusError) for result in results)
            await reading
            assert asyncio.all_tasks() == {asyncio.current_task()}

    async def test_by_consumers_that_were_cancelled(self, scratch: Scratch) -> None:
        bus = await scratch.working_bus()
        before = None
        for n in range(200):
            await publish(bus, f"m{n}")
            consumer = await bus.consume(WORK, prefetch=1, consumer_tag="host-agent@machine/slot-1")
            delivery = await asyncio.wait_for(anext(consumer), PATIENCE_S)
            await consumer.cancel()
            await delivery.ack()
            if n == 10:
                before = self._count()
        assert before is not None
        await self._expect(before)
        assert await drain(bus) == []

    @staticmethod
    def _count() -> tuple[int, int]:
        gc.collect()
        return len(asyncio.all_tasks()), psutil.Process().num_fds()

    async def _expect(self, before: tuple[int, int]) -> None:
        def is_no_more() -> bool:
            tasks, files = self._count()
            return tasks <= before[0] and files <= before[1]

        await eventually(is_no_more, f"no more than {before} tasks and files")
