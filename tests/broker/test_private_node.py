"""The RabbitMQ that tests start for themselves."""

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from uuid import uuid4

import aio_pika
import psutil
import pytest
import pytest_asyncio
from aio_pika.abc import AbstractChannel, AbstractConnection, AbstractIncomingMessage, AbstractQueue
from aio_pika.exceptions import AMQPError

from tests.broker.node import PrivateNode
from tests.broker.node_config import MIB, NodeConfig
from tests.broker.processes import processes_of
from tests.e2e.waiting import eventually

# One process of the tests runs them all, so that there is one node to be configured.
pytestmark = [pytest.mark.broker, pytest.mark.xdist_group("test_private_node")]

_WITHIN_S = 60.0
_BLOCKED_S = 0.5

_OWNER = """
import sys
from tests.broker.node import PrivateNode
from tests.broker.node_config import NodeConfig
with PrivateNode(NodeConfig(plugins=())) as node:
    print(node.log.parents[1], flush=True)
    sys.stdin.read()
"""


@pytest_asyncio.fixture
async def connection(private_node: PrivateNode) -> AsyncIterator[AbstractConnection]:
    async with await aio_pika.connect(private_node.amqp_url(), timeout=_WITHIN_S) as opened:
        yield opened


@pytest.fixture(scope="module")
def configured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrivateNode]:
    """A node that starts with a user and closes the channels of slow consumers after 300 ms."""
    definitions = tmp_path_factory.mktemp("definitions") / "definitions.json"
    user = {"name": "observer", "password": "watch", "tags": ""}
    reads = {"user": "observer", "vhost": "/", "configure": "", "write": "", "read": ".*"}
    definitions.write_text(json.dumps({"vhosts": [{"name": "/"}], "users": [user], "permissions": [reads]}))
    with PrivateNode(NodeConfig(definitions=definitions, consumer_timeout_ms=300)) as node:
        yield node


@pytest.fixture
def name() -> str:
    return f"test.{uuid4()}"


async def declare(channel: AbstractChannel, name: str) -> AbstractQueue:
    return await channel.declare_queue(name, durable=True, arguments={"x-queue-type": "quorum"})


async def publish(channel: AbstractChannel, name: str, body: bytes, *, within_s: float = _WITHIN_S) -> None:
    message = aio_pika.Message(body, delivery_mode=aio_pika.DeliveryMode.PERSISTENT)
    await channel.default_exchange.publish(message, name, timeout=within_s)


async def hold(_: AbstractIncomingMessage) -> None:
    """Take a message and never acknowledge it."""


async def test_confirmed_messages_survive_the_death_of_the_node(
    private_node: PrivateNode, connection: AbstractConnection, name: str
) -> None:
    channel = await connection.channel()
    await declare(channel, name)
    await publish(channel, name, b"kept")
    await asyncio.to_thread(private_node.restart)
    async with await aio_pika.connect(private_node.amqp_url(), timeout=_WITHIN_S) as again:
        queue = await declare(await again.channel(), name)
        message = await queue.get(timeout=_WITHIN_S)
        assert message.body == b"kept"


async def test_the_memory_alarm_blocks_who_publishes_until_it_ends(
    private_node: PrivateNode, connection: AbstractConnection, name: str
) -> None:
    channel = await connection.channel()
    queue = await declare(channel, name)
    private_node.set_memory_alarm(True)
    with pytest.raises(TimeoutError):
        await publish(channel, name, b"late", within_s=_BLOCKED_S)
    private_node.set_memory_alarm(False)
    await publish(channel, name, b"next")
    message = await queue.get(timeout=_WITHIN_S)
    assert message.body == b"late"


async def test_a_message_over_the_limit_is_refused(connection: AbstractConnection, name: str) -> None:
    channel = await connection.channel()
    await declare(channel, name)
    await publish(channel, name, bytes(15 * MIB))
    with pytest.raises(AMQPError, match="message size"):
        await publish(channel, name, bytes(17 * MIB))


async def test_tls_works_for_who_trusts_the_authority(private_node: PrivateNode) -> None:
    url = f"{private_node.amqps_url()}?cafile={private_node.authority}"
    async with await aio_pika.connect(url, timeout=_WITHIN_S) as connection:
        assert not connection.is_closed


async def test_tls_fails_for_who_does_not_trust_the_authority(private_node: PrivateNode) -> None:
    with pytest.raises(AMQPError, match="certificate verify failed"):
        await aio_pika.connect(private_node.amqps_url(), timeout=_WITHIN_S)


def test_nothing_listens_to_other_machines(private_node: PrivateNode) -> None:
    listening = [
        connection.laddr.ip
        for process in processes_of(private_node.log.parents[1])
        for connection in process.net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN
    ]
    assert len(listening) > 4
    assert set(listening) <= {"127.0.0.1", "::1"}


def test_rabbitmqctl_speaks_with_this_node(private_node: PrivateNode) -> None:
    assert str(private_node.log.parent) in private_node.ctl("status")


async def test_a_slow_consumer_loses_its_channel(configured: PrivateNode, name: str) -> None:
    async with await aio_pika.connect(configured.amqp_url(), timeout=_WITHIN_S) as connection:
        channel = await connection.channel()
        lost = asyncio.Event()
        channel.close_callbacks.add(lambda *_: lost.set())
        queue = await declare(channel, name)
        await publish(channel, name, b"never acknowledged")
        await queue.consume(hold)
        await asyncio.wait_for(lost.wait(), _WITHIN_S)


async def test_a_node_starts_with_the_users_of_its_definitions(configured: PrivateNode, name: str) -> None:
    url = configured.amqp_url(user="observer", password="watch")
    async with await aio_pika.connect(url, timeout=_WITHIN_S) as connection:
        channel = await connection.channel()
        with pytest.raises(AMQPError, match="ACCESS_REFUSED"):
            await declare(channel, name)


@pytest.mark.long
def test_data_stay_when_it_has_ended_in_order_and_nothing_when_it_is_stopped() -> None:
    with PrivateNode(NodeConfig(plugins=())) as node:
        directory = node.log.parents[1]
        assert processes_of(directory)
        node.shutdown()
        assert not node.is_running
        assert (directory / "rabbit" / "data").is_dir()
    assert not processes_of(directory)
    assert not directory.exists()


def test_nothing_is_left_when_its_owner_is_killed() -> None:
    owner = subprocess.Popen(
        [sys.executable, "-c", _OWNER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with owner:
        assert owner.stdout is not None
        directory = Path(owner.stdout.readline().strip())
        assert processes_of(directory)
        owner.kill()
    eventually(
        lambda: not directory.exists() and not processes_of(directory),
        within_s=_WITHIN_S,
        otherwise=lambda: f"{directory}: {processes_of(directory)}",
    )
