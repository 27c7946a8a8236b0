"""Three nodes that the tests start as one RabbitMQ."""

import asyncio
from uuid import uuid4

import aio_pika
import pytest

from tests.broker.cluster import Cluster

pytestmark = [pytest.mark.broker, pytest.mark.slow, pytest.mark.xdist_group("cluster")]

_WITHIN_S = 20.0


async def test_confirmed_messages_survive_the_leader_and_it_comes_back(cluster: Cluster) -> None:
    name = f"test.{uuid4()}"
    quorum = {"x-queue-type": "quorum"}
    async with await aio_pika.connect(cluster.urls()[0], timeout=_WITHIN_S) as connection:
        channel = await connection.channel()
        await channel.declare_queue(name, durable=True, arguments=quorum)
        message = aio_pika.Message(b"kept", delivery_mode=aio_pika.DeliveryMode.PERSISTENT)
        await channel.default_exchange.publish(message, name, timeout=_WITHIN_S)

    leader = cluster.leader_of(name)
    await asyncio.to_thread(leader.kill)
    successor = await asyncio.to_thread(cluster.leader_of, name)
    assert successor is not leader
    assert len(cluster.running()) == 2

    async with await aio_pika.connect(successor.amqp_url(), timeout=_WITHIN_S) as connection:
        channel = await connection.channel()
        queue = await channel.declare_queue(name, durable=True, arguments=quorum)
        kept = await queue.get(timeout=_WITHIN_S)
        assert kept.body == b"kept"

    await asyncio.to_thread(cluster.start)
    assert leader.evaluate("length(nodes())") == "2"
