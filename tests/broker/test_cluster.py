"""Three nodes that the tests start as one RabbitMQ."""

import asyncio
from contextlib import ExitStack
from pathlib import Path
from uuid import uuid4

import aio_pika
import pytest

from ktrdr.backend.states import State
from tests.broker.cluster import Cluster
from tests.e2e.deployment import Deployment
from tests.e2e.installation import epochs
from tests.e2e.waiting import eventually

pytestmark = [pytest.mark.broker, pytest.mark.long, pytest.mark.xdist_group("cluster")]

_WITHIN_S = 60.0


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


@pytest.mark.fault
@pytest.mark.timeout(300)
def test_work_that_is_queued_and_running_survives_the_loss_of_the_leader(
    tmp_path: Path, cluster: Cluster
) -> None:
    with Deployment(tmp_path, cluster.nodes[0]) as deployment, ExitStack() as stack:
        stack.callback(cluster.start)  # a part of a cluster does not delete what is on all of it
        deployment.variables["KTRDR_BROKER_URL"] = " ".join(cluster.urls(vhost=deployment.vhost))
        deployment.variables["KTRDR_ACCEPT_DEADLINE_S"] = "20"
        deployment.serve()
        deployment.ready_agent("alpha")
        running = deployment.submit(*epochs(150))
        queued = deployment.submit_again(running, [1, 2])
        eventually(lambda: deployment.has_reached_epoch(1), within_s=30, otherwise=deployment.describe)

        leader = cluster.leader_of("ktrdr.lane.any", vhost=deployment.vhost)
        leader.kill()
        deployment.node = cluster.running()[0]
        # More work comes, and some of it while the node is away.
        queued += deployment.submit_again(running, [3])
        deployment.wait_for_all()
        assert [op.state for op in deployment.operations()] == [State.COMPLETED] * 4, deployment.describe()
        assert len(deployment.versions()) == 4
        assert not leader.is_running

        cluster.start()
        deployment.submit_again(running, [4])
        deployment.wait_for_all()
        deployment.wait_for_empty_queues()
        assert len(deployment.versions()) == 5
