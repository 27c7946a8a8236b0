"""What each user of the shipped definitions may do on a real broker, and what is refused."""

import asyncio
import json
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Any

import aio_pika
import pytest
from aio_pika.abc import AbstractChannel, AbstractConnection
from aiormq.exceptions import (
    AMQPError,
    ChannelAccessRefused,
    ChannelLockedResource,
    ChannelPreconditionFailed,
)
from typer.testing import CliRunner

from ktrdr.bus.publisher import EventPublisher
from ktrdr.bus.rabbitmq import RabbitMQBus
from ktrdr.bus.topology import (
    BACKEND_EVENTS,
    BACKEND_RETURNED,
    CONTROL,
    DEAD,
    DEAD_LETTERS,
    EVENTS,
    JOURNAL,
    LOGS,
    PRESENCE,
    REQUESTS,
    RETURNED,
    ROUTES,
    Party,
    control_queue,
    lane_queue,
    presence_queue,
    progress_queue,
)
from ktrdr.cli.main import app
from ktrdr.clock import SystemClock
from ktrdr.errors import AccessRefusedError
from ktrdr.ids import RandomIds
from tests.broker.node import PrivateNode
from tests.unit.events_cases import example

pytestmark = pytest.mark.broker

OWN = "gpu-box.1"
"""An agent with a user of its own."""
LIMIT_S = 60.0
INTERNAL = (BACKEND_EVENTS, BACKEND_RETURNED, DEAD_LETTERS)


@dataclass(frozen=True)
class Users:
    """A virtual host with the shipped definitions, and who may connect to it."""

    node: PrivateNode
    vhost: str
    passwords: dict[str, str]

    async def connect(self, user: str) -> AbstractConnection:
        url = self.node.amqp_url(user=user, password=self.passwords[user], vhost=self.vhost)
        return await aio_pika.connect(url, timeout=LIMIT_S)


@pytest.fixture(scope="module")
def users(any_private_node: PrivateNode, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Users]:
    vhost = f"users-{secrets.token_hex(4)}"
    file = tmp_path_factory.mktemp("users") / "passwords"
    passwords: dict[str, str] = {}
    for options in ([], ["--agent", OWN]):
        arguments = ["broker", "definitions", "--vhost", vhost, "--passwords", str(file), *options]
        ran = CliRunner().invoke(app, arguments)
        assert ran.exit_code == 0, ran.output
        any_private_node.management.import_definitions(json.loads(ran.stdout))
    for line in filter(None, file.read_text().splitlines()):
        variable, _, password = line.partition("=")
        passwords[OWN if variable.startswith("GPU") else variable.removesuffix("_PASSWORD").lower()] = (
            password
        )
    any_private_node.management.set_permissions("guest", configure=".*", write=".*", read=".*", vhost=vhost)
    yield Users(any_private_node, vhost, {**passwords, "guest": "guest"})
    any_private_node.management.delete_vhost(vhost)
    for user in passwords:
        any_private_node.management.delete_user(user)


Connect = Callable[[str], Awaitable[AbstractConnection]]


@pytest.fixture
async def connect(users: Users) -> AsyncIterator[Connect]:
    connections: list[AbstractConnection] = []

    async def open_one(user: str) -> AbstractConnection:
        connections.append(await users.connect(user))
        return connections[-1]

    yield open_one
    for connection in connections:
        await connection.close()


async def attempt(connection: AbstractConnection, action: Callable[[AbstractChannel], Awaitable[Any]]) -> Any:
    """Do something on a channel of its own, within reasonable time."""
    async with asyncio.timeout(LIMIT_S):
        channel = await connection.channel(on_return_raises=True)
        try:
            return await action(channel)
        finally:
            await channel.close()


async def is_refused(
    connection: AbstractConnection, action: Callable[[AbstractChannel], Awaitable[Any]]
) -> bool:
    try:
        await attempt(connection, action)
    except ChannelAccessRefused:
        return True
    return False


def publish(
    exchange: str, key: str, *, mandatory: bool = True, **properties: Any
) -> Callable[[AbstractChannel], Awaitable[Any]]:
    async def action(channel: AbstractChannel) -> None:
        target = await channel.get_exchange(exchange, ensure=False) if exchange else channel.default_exchange
        message = aio_pika.Message(b"", **properties)
        await target.publish(message, routing_key=key, mandatory=mandatory, timeout=LIMIT_S)

    return action


def get(queue: str) -> Callable[[AbstractChannel], Awaitable[Any]]:
    async def action(channel: AbstractChannel) -> Any:
        return await (await channel.get_queue(queue, ensure=False)).get(no_ack=True, fail=False)

    return action


def consume(queue: str, **arguments: Any) -> Callable[[AbstractChannel], Awaitable[Any]]:
    async def action(channel: AbstractChannel) -> None:
        await channel.set_qos(1)
        consumed = await channel.get_queue(queue, ensure=False)

        async def take(message: aio_pika.abc.AbstractIncomingMessage) -> None:
            """Hold it."""

        await consumed.cancel(await consumed.consume(take, arguments=arguments))

    return action


def declare(queue: str, *, exclusive: bool = False) -> Callable[[AbstractChannel], Awaitable[Any]]:
    return lambda channel: channel.declare_queue(
        queue, durable=not exclusive, exclusive=exclusive, arguments={"x-queue-type": "classic"}
    )


def declare_exchange(name: str) -> Callable[[AbstractChannel], Awaitable[Any]]:
    return lambda channel: channel.declare_exchange(name, "topic", durable=True)


def delete(queue: str) -> Callable[[AbstractChannel], Awaitable[Any]]:
    return lambda channel: channel.queue_delete(queue, if_unused=False, if_empty=False)


def purge(queue: str) -> Callable[[AbstractChannel], Awaitable[Any]]:
    async def action(channel: AbstractChannel) -> None:
        await (await channel.get_queue(queue, ensure=False)).purge()

    return action


def bind(queue: str, exchange: str, key: str = "#") -> Callable[[AbstractChannel], Awaitable[Any]]:
    async def action(channel: AbstractChannel) -> None:
        await (await channel.get_queue(queue, ensure=False)).bind(exchange, key)

    return action


KINDS = {
    party: [
        rule.routing_key.rpartition(".")[2]
        for rule in ROUTES.values()
        if rule.sender is party and rule.exchange in (EVENTS, CONTROL)
    ]
    for party in Party
}


@pytest.mark.parametrize("user", ["agent", OWN])
class TestAnAgent:
    async def test_tells_the_log_of_operations_and_nothing_else_there(
        self, connect: Connect, user: str
    ) -> None:
        agent = await connect(user)
        await attempt(agent, publish(LOGS, "training.op-1.logged", user_id=user, mandatory=False))
        for key in ("training.op-1.failed", "training.logged", "", "training.op-1.logged.more"):
            assert await is_refused(agent, publish(LOGS, key))
        assert await is_refused(agent, publish(EVENTS, "training.op-1.logged"))

    @pytest.mark.parametrize("kind", KINDS[Party.AGENT])
    async def test_says_what_agents_say(self, connect: Connect, user: str, kind: str) -> None:
        agent = await connect(user)
        await attempt(agent, publish(EVENTS, f"training.op-1.{kind}", user_id=user))
        await attempt(agent, publish(PRESENCE, "", user_id=user, mandatory=False))

    @pytest.mark.parametrize("kind", [*KINDS[Party.BACKEND], "requested", "anything", "accepted.more"])
    async def test_says_nothing_else(self, connect: Connect, user: str, kind: str) -> None:
        agent = await connect(user)
        assert await is_refused(agent, publish(EVENTS, f"training.op-1.{kind}"))
        assert await is_refused(agent, publish(CONTROL, f"training.op-1.{kind}"))

    @pytest.mark.parametrize(
        "key", ["", "accepted", "training.accepted", "training.a.b.accepted", "x.op-1.failed"]
    )
    async def test_says_it_of_operations_only(self, connect: Connect, user: str, key: str) -> None:
        assert await is_refused(await connect(user), publish(EVENTS, key))

    @pytest.mark.parametrize("exchange", [REQUESTS, CONTROL, RETURNED, DEAD, "amq.topic", ""])
    async def test_writes_to_no_other_exchange(self, connect: Connect, user: str, exchange: str) -> None:
        agent = await connect(user)
        assert await is_refused(agent, publish(exchange, "any"))
        assert await is_refused(agent, publish(exchange, BACKEND_EVENTS))

    async def test_cannot_speak_as_another_user(self, connect: Connect, user: str) -> None:
        agent = await connect(user)
        for other in {"backend", "agent", OWN} - {user}:
            with pytest.raises(ChannelPreconditionFailed, match="user_id"):
                await attempt(agent, publish(EVENTS, "training.op-1.failed", user_id=other))

    async def test_takes_requests_from_lanes(self, connect: Connect, user: str) -> None:
        agent = await connect(user)
        for lane in ("any", "gpu"):
            await attempt(agent, consume(lane_queue(lane)))

    @pytest.mark.parametrize("queue", [*INTERNAL, JOURNAL])
    async def test_reads_nothing_that_is_the_backends(self, connect: Connect, user: str, queue: str) -> None:
        agent = await connect(user)
        assert await is_refused(agent, consume(queue))
        assert await is_refused(agent, get(queue))
        assert await is_refused(agent, bind(queue, CONTROL))

    @pytest.mark.parametrize("queue", [*INTERNAL, JOURNAL, lane_queue("any"), lane_queue("new")])
    async def test_declares_and_deletes_nothing_that_is_shared(
        self, connect: Connect, user: str, queue: str
    ) -> None:
        agent = await connect(user)
        assert await is_refused(agent, declare(queue))
        assert await is_refused(agent, delete(queue))
        assert await is_refused(agent, lambda channel: channel.exchange_delete(EVENTS))
        assert await is_refused(agent, declare_exchange(EVENTS))

    async def test_has_a_control_queue_of_its_own(self, connect: Connect, user: str) -> None:
        agent, backend = await connect(user), await connect("backend")
        queue = control_queue(OWN)
        channel = await agent.channel()
        declared = await channel.declare_queue(queue, exclusive=True, arguments={"x-queue-type": "classic"})
        await declared.bind(CONTROL, "#")
        await attempt(backend, publish(CONTROL, "training.op-1.cancel_requested"))
        message = await declared.get(no_ack=True, timeout=LIMIT_S)
        assert message.routing_key == "training.op-1.cancel_requested"
        await channel.close()
        with pytest.raises(ChannelLockedResource):
            await attempt(await connect("agent"), get(queue))

    @pytest.mark.parametrize("exchange", [REQUESTS, EVENTS, PRESENCE, DEAD, RETURNED])
    async def test_hears_only_what_is_for_agents(self, connect: Connect, user: str, exchange: str) -> None:
        agent = await connect(user)
        channel = await agent.channel()
        queue = await channel.declare_queue(control_queue(OWN), exclusive=True)
        assert await is_refused(agent, bind(queue.name, exchange))


class TestAnAgentWithAUserOfItsOwn:
    @pytest.mark.parametrize("name", ["other", "gpu-box", "gpu-boxX1", "gpu-box.1.more"])
    async def test_has_nothing_to_do_with_the_queues_of_others(self, connect: Connect, name: str) -> None:
        agent, guest = await connect(OWN), await connect("guest")
        queue = control_queue(name)
        assert await is_refused(agent, declare(queue, exclusive=True))
        await attempt(guest, declare(queue))
        assert await is_refused(agent, get(queue))
        assert await is_refused(agent, delete(queue))
        await attempt(guest, delete(queue))


class TestTheBackend:
    async def test_declares_publishes_and_consumes_everything_of_ktrdr(self, connect: Connect) -> None:
        backend = await connect("backend")
        for queue in INTERNAL:
            await attempt(backend, consume(queue))
        await attempt(backend, declare(lane_queue("new")))
        await attempt(backend, bind(lane_queue("new"), REQUESTS, "new"))
        await attempt(backend, publish(REQUESTS, "new"))
        await attempt(backend, publish(CONTROL, "training.op-1.model_persisted", mandatory=False))
        await attempt(backend, publish("", lane_queue("new")))
        await attempt(backend, delete(lane_queue("new")))

    async def test_has_queues_of_its_own_for_what_may_be_lost(self, connect: Connect) -> None:
        backend, agent = await connect("backend"), await connect("agent")
        for queue, exchange, key in (
            (progress_queue("vm.1"), EVENTS, "training.*.progress"),
            (presence_queue("vm.1"), PRESENCE, ""),
        ):
            assert await is_refused(agent, declare(queue, exclusive=True))
            await attempt(backend, declare(queue, exclusive=True))
            await attempt(backend, bind(queue, exchange, key))
            await attempt(agent, publish(exchange, key.replace("*", "op-1"), user_id="agent"))
            await attempt(backend, get(queue))

    async def test_touches_nothing_of_others(self, connect: Connect) -> None:
        backend, guest = await connect("backend"), await connect("guest")
        await attempt(guest, declare("others"))
        assert await is_refused(backend, get("others"))
        assert await is_refused(backend, delete("others"))
        assert await is_refused(backend, declare("ktrdrX"))
        assert await is_refused(backend, publish("amq.topic", "x"))
        await attempt(guest, delete("others"))


class TestTheObserver:
    async def test_reads_the_journal_from_its_beginning(self, connect: Connect) -> None:
        backend, observer = await connect("backend"), await connect("observer")
        await attempt(backend, publish(EVENTS, "training.op-observed.failed", message_id="seen"))
        channel = await observer.channel()
        await channel.set_qos(100)
        seen: asyncio.Queue[str | None] = asyncio.Queue()

        async def take(message: aio_pika.abc.AbstractIncomingMessage) -> None:
            seen.put_nowait(message.message_id)
            await message.ack()

        journal = await channel.get_queue(JOURNAL, ensure=False)
        await journal.consume(take, arguments={"x-stream-offset": "first"})
        async with asyncio.timeout(LIMIT_S):
            while await seen.get() != "seen":
                pass
        await channel.close()

    @pytest.mark.parametrize("queue", [*INTERNAL, lane_queue("any")])
    async def test_reads_nothing_else(self, connect: Connect, queue: str) -> None:
        observer = await connect("observer")
        assert await is_refused(observer, consume(queue))
        assert await is_refused(observer, get(queue))

    async def test_changes_nothing(self, connect: Connect) -> None:
        observer = await connect("observer")
        for exchange in (REQUESTS, EVENTS, CONTROL, PRESENCE, DEAD, ""):
            assert await is_refused(observer, publish(exchange, "training.op-1.failed"))
        assert await is_refused(observer, delete(JOURNAL))
        assert await is_refused(observer, purge(lane_queue("any")))
        assert await is_refused(observer, declare(control_queue("observer"), exclusive=True))


async def test_nobody_gets_in_with_a_wrong_password(users: Users) -> None:
    for user in ("backend", "agent", "observer", OWN):
        for wrong in ("", user, "x"):
            with pytest.raises((AMQPError, ConnectionError)):
                await aio_pika.connect(users.node.amqp_url(user=user, password=wrong, vhost=users.vhost))


async def test_a_broker_that_was_set_up_before_there_were_logs_refuses_them_alone(users: Users) -> None:
    former, password = "agent-of-before", secrets.token_hex(8)
    management = users.node.management
    management.add_user(former, password)
    said = {"write": r"^ktrdr\.(events|presence)$", "configure": "^$", "read": "^$"}
    management.set_permissions(former, vhost=users.vhost, **said)
    bus = RabbitMQBus(users.node.amqp_url(user=former, password=password, vhost=users.vhost), name="before")
    publisher = EventPublisher(bus, sender="a@b", ids=RandomIds(), clock=SystemClock(), timeout_s=LIMIT_S)

    async def log() -> None:
        with pytest.raises(AccessRefusedError):
            await publisher.publish(example("ktrdr.training.logged"))

    async def progress() -> None:
        await publisher.publish(example("ktrdr.training.progress"))

    try:
        for _ in range(3):
            await asyncio.gather(progress(), log(), progress(), log(), progress())
    finally:
        await bus.close()
        management.delete_user(former)
