"""What people read in the management UI, whose data is the management API, while everything works."""

import asyncio
import re
import socket
from collections.abc import Iterator
from typing import Any

import aio_pika
import pytest

from ktrdr.bus.rabbitmq import RabbitMQBus
from ktrdr.bus.topology import BACKEND_EVENTS, DEAD_LETTERS, EVENTS, JOURNAL, lane_queue, shared_topology
from ktrdr.events.message import Message
from tests.broker.node import PrivateNode
from tests.broker.operating_world import AGENT, World, working
from tests.e2e.waiting import eventually

pytestmark = [pytest.mark.broker, pytest.mark.xdist_group("operating")]
WITHIN_S = 60.0


@pytest.fixture(scope="module")
def world(any_private_node: PrivateNode, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with working(any_private_node, tmp_path_factory.mktemp("world")) as there:
        yield there


def peek(world: World, queue: str) -> list[dict[str, Any]]:
    """Messages of a queue, as *Get messages* shows them; they stay."""
    body = {"count": 10, "ackmode": "ack_requeue_true", "encoding": "auto"}
    path = ("queues", world.vhost, queue, "get")
    return list(world.node.management.request("POST", *path, json=body))


def test_connections_say_who_they_are_and_for_what(world: World) -> None:
    def connections() -> dict[str, str]:
        found = world.node.management.connections()
        return {
            each["client_properties"].get("connection_name", ""): each["user"]
            for each in found
            if each["vhost"] == world.vhost
        }

    eventually(lambda: len(connections()) >= 4, within_s=WITHIN_S, otherwise=lambda: str(connections()))
    by_name = connections()
    assert by_name[f"host-agent@{AGENT} publisher"] == "agent"
    assert by_name[f"host-agent@{AGENT} consumer"] == "agent"
    backends = {name: user for name, user in by_name.items() if name.startswith("backend@")}
    assert {name.rpartition(" ")[2] for name in backends} == {"publisher", "consumer"}
    assert set(backends.values()) == {"backend"}


def test_consumers_say_who_they_are(world: World) -> None:
    def consumers() -> dict[str, str]:
        found = world.node.management.consumers(world.vhost)
        return {each["queue"]["name"]: each["consumer_tag"] for each in found}

    eventually(
        lambda: lane_queue("any") in consumers(), within_s=WITHIN_S, otherwise=lambda: str(consumers())
    )
    by_queue = consumers()
    assert by_queue[lane_queue("any")] == f"host-agent@{AGENT}/slot-1"
    assert by_queue[f"ktrdr.control.{AGENT}"] == f"host-agent@{AGENT}/control"
    assert by_queue[BACKEND_EVENTS].startswith("backend@")


def test_queues_have_names_that_say_what_is_in_them(world: World) -> None:
    found = {queue["name"] for queue in world.node.management.queues(world.vhost)}
    backend = re.compile(rf"ktrdr\.backend\.{re.escape(socket.gethostname())}\.\w+\.(\w+)")
    its_own = {name: match[1] for name in found if (match := backend.fullmatch(name))}
    assert sorted(its_own.values()) == ["logs", "presence", "progress"]
    shared = {queue.name for queue in shared_topology().queues}
    assert found - its_own.keys() == shared | {f"ktrdr.control.{AGENT}"}


def test_a_request_says_what_it_asks_for(world: World) -> None:
    world.installation.train("--lane", "gpu", "--detach").succeed()
    eventually(
        lambda: peek(world, lane_queue("gpu")), within_s=WITHIN_S, otherwise="the request is in its lane"
    )
    (request,) = peek(world, lane_queue("gpu"))
    properties = request["properties"]
    assert properties["type"] == "ktrdr.training.requested.v1"
    assert properties["correlation_id"].startswith("op-")
    assert properties["app_id"].startswith("backend@")
    assert properties["user_id"] == "backend"
    assert properties["content_type"] == "application/msgpack"
    assert properties["headers"]["summary"] == "train eurusd_momentum on EURUSD 1h · attempt 1 · seed 7"
    assert properties["headers"]["cloudEvents:subject"] == properties["correlation_id"]
    world.installation.run("ops", "cancel", properties["correlation_id"]).succeed()


async def test_a_dead_letter_says_why_and_where_it_died(world: World) -> None:
    nonsense = Message(b"nonsense", "m-1", "ktrdr.training.failed.v9", headers={"summary": "from the future"})
    bus = RabbitMQBus(world.url("agent"), name="host-agent@elsewhere")
    await bus.publish(
        nonsense, exchange=EVENTS, routing_key="training.op-1.failed", mandatory=True, timeout_s=60.0
    )
    await bus.close()
    eventually(lambda: peek(world, DEAD_LETTERS), within_s=WITHIN_S, otherwise="the backend has rejected it")
    (letter,) = peek(world, DEAD_LETTERS)
    properties = letter["properties"]
    assert properties["message_id"] == "m-1"
    assert properties["headers"]["x-ktrdr-from-queue"] == BACKEND_EVENTS
    reason = properties["headers"]["x-ktrdr-reason"]
    assert reason == "ktrdr.training.failed is known in version 1, not 9."
    assert properties["headers"]["summary"] == "from the future"
    listed = world.installation.run("dead", "list", "--json").succeed().json()
    assert [(letter["id"], letter["from_queue"]) for letter in listed] == [("m-1", BACKEND_EVENTS)]
    world.installation.run("dead", "discard", "m-1", "--yes").succeed()


async def test_the_observer_reads_in_the_journal_what_has_happened(world: World) -> None:
    summaries: list[str] = []
    said_by = set()
    ended = asyncio.Event()

    async def read(message: aio_pika.abc.AbstractIncomingMessage) -> None:
        if message.correlation_id == world.operation_id:
            said_by.add((message.app_id, message.user_id))
            summaries.append(str(message.headers["summary"]))
        if message.type == "ktrdr.training.model_ready.v1":
            ended.set()
        await message.ack()

    connection = await aio_pika.connect(world.url("observer"))
    async with connection, asyncio.timeout(WITHIN_S):
        channel = await connection.channel()
        await channel.set_qos(10)
        journal = await channel.get_queue(JOURNAL, ensure=False)
        await journal.consume(read, arguments={"x-stream-offset": "first"})
        await ended.wait()
    assert said_by == {(f"{AGENT}@{socket.gethostname()}", "agent")}
    assert summaries[0] == f"attempt 1 accepted by {AGENT}/slot-1 on cpu"
    assert any(summary.startswith("attempt 1 · [6/8] Training") for summary in summaries)
    assert summaries[-1].startswith("eurusd_momentum EURUSD 1h · ")


def test_the_agent_is_listed_with_what_it_is(world: World) -> None:
    (agent,) = world.installation.run("agents", "--json").succeed().json()
    assert (agent["agent_id"], agent["lanes"], agent["slots_total"]) == (AGENT, ["any"], 1)
    assert agent["status"] in {"ready", "busy"}


def test_the_check_of_a_broker_at_work_finds_nothing_wrong(world: World) -> None:
    command = world.installation.run("broker", "check", "--management", world.management_url, "--json")
    found = command.succeed().json()
    # A request that was cancelled stays in its lane until it expires.
    assert {finding["name"] for finding in found if finding["mark"] != "ok"} <= {lane_queue("gpu")}
    by_name = {finding["name"]: finding["detail"] for finding in found}
    assert by_name["backend"].startswith("may declare ^(ktrdr")
    assert " 1 consumer" in by_name[BACKEND_EVENTS]
