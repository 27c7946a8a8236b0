"""What is declared on a RabbitMQ, by whom, and what is said if it is there otherwise."""

from collections.abc import AsyncIterator, Iterator
from dataclasses import replace

import pytest
import pytest_asyncio

from ktrdr.bus.rabbitmq_arguments import queue_arguments
from ktrdr.bus.topology import (
    CONTROL,
    REQUESTS,
    Binding,
    Exchange,
    ExchangeKind,
    Queue,
    QueueKind,
    Topology,
    agent_topology,
    control_queue,
    lane_queue,
    presence_queue,
    presence_topology,
    progress_queue,
    progress_topology,
    shared_topology,
)
from ktrdr.errors import AccessRefusedError, BusError, QueueTakenError
from tests.broker.node import PrivateNode
from tests.broker.rabbitmq_cases import WORK, WORK_TOPOLOGY, Scratch, drain, publish, scratch_on

pytestmark = [pytest.mark.broker, pytest.mark.xdist_group("rabbitmq")]


@pytest_asyncio.fixture
async def scratch(private_node: PrivateNode) -> AsyncIterator[Scratch]:
    async with scratch_on(private_node) as made:
        yield made


@pytest.fixture
def stranger(private_node: PrivateNode) -> Iterator[str]:
    """The URL of a user who may read and write everything, and declare only control queues."""
    private_node.management.add_user("stranger", "stranger")
    private_node.management.set_permissions("stranger", configure=r"\.control\.", write=".*", read=".*")
    yield private_node.amqp_url(user="stranger")
    private_node.management.delete_user("stranger")


async def test_the_topology_is_declared_as_it_is_meant(scratch: Scratch, private_node: PrivateNode) -> None:
    bus = scratch.bus()
    await bus.declare(shared_topology())
    await bus.declare(agent_topology("host-a"))
    own = (progress_topology("vm.1"), presence_topology("vm.1"))
    for topology in own:
        await bus.declare(topology)
    there = {each["name"]: each for each in private_node.management.queues()}
    for queue in shared_topology().queues:
        declared = there[scratch.wire(queue.name)]
        assert declared["arguments"] == queue_arguments(queue, scratch.prefix)
        assert (declared["durable"], declared["exclusive"], declared["auto_delete"]) == (True, False, False)
    for name in (control_queue("host-a"), progress_queue("vm.1"), presence_queue("vm.1")):
        exclusive = there[scratch.wire(name)]
        assert (exclusive["type"], exclusive["durable"], exclusive["exclusive"]) == ("classic", False, True)
    exchanges = {each["name"]: each for each in private_node.management.exchanges()}
    for exchange in shared_topology().exchanges:
        declared = exchanges[scratch.wire(exchange.name)]
        assert (declared["type"], declared["durable"]) == (exchange.kind.value, True)
    bound = {
        (each["source"], each["destination"], each["routing_key"])
        for each in private_node.management.bindings()
    }
    for binding in (binding for topology in (shared_topology(), *own) for binding in topology.bindings):
        assert (scratch.wire(binding.exchange), scratch.wire(binding.queue), binding.routing_key) in bound


@pytest.mark.parametrize(
    ("first", "second", "said"),
    [
        (Queue(WORK, max_length=10), Queue(WORK, max_length=11), r"another maximum length: 10, not 11"),
        (Queue(WORK), Queue(WORK, QueueKind.CLASSIC), r"another type: quorum, not classic"),
        (
            Queue(WORK, dead_letter_exchange="ktrdr.a"),
            Queue(WORK, dead_letter_exchange="ktrdr.b"),
            r"another dead-letter exchange: .*\.a, not .*\.b",
        ),
    ],
)
async def test_a_queue_that_is_there_otherwise_is_explained(
    scratch: Scratch, first: Queue, second: Queue, said: str
) -> None:
    bus = scratch.bus()
    await bus.declare(Topology(queues=(first,)))
    with pytest.raises(BusError, match=f"queue '{scratch.wire(WORK)}' exists with {said}") as raised:
        await bus.declare(Topology(queues=(second,)))
    assert "ktrdr broker setup" in (raised.value.fix or "")
    assert bus.stats.connections_lost == 0


async def test_an_exchange_that_is_there_otherwise_is_explained(scratch: Scratch) -> None:
    bus = scratch.bus()
    await bus.declare(Topology((Exchange("ktrdr.x", ExchangeKind.TOPIC),)))
    with pytest.raises(BusError, match=r"exchange '.*\.x' exists with another type: topic, not fanout"):
        await bus.declare(Topology((Exchange("ktrdr.x", ExchangeKind.FANOUT),)))


async def test_who_may_not_declare_accepts_what_is_there(scratch: Scratch, stranger: str) -> None:
    admin = scratch.bus()
    await admin.declare(shared_topology())
    agent = scratch.bus(stranger)
    await agent.declare(shared_topology())
    await agent.declare(agent_topology("host-a"))
    await publish(admin, "to the agent", exchange=CONTROL, routing_key="training.op-1.cancel_requested")
    assert await drain(agent, control_queue("host-a")) == ["to the agent"]
    await publish(agent, "to the lane", exchange=REQUESTS, routing_key="any")
    assert await drain(admin, lane_queue("any")) == ["to the lane"]


@pytest.mark.parametrize("missing", ["exchange", "queue"])
async def test_who_may_not_declare_is_told_what_is_missing(
    scratch: Scratch, stranger: str, missing: str
) -> None:
    admin = scratch.bus()
    if missing == "queue":
        await admin.declare(replace(WORK_TOPOLOGY, queues=(), bindings=()))
    else:
        await admin.declare(replace(WORK_TOPOLOGY, exchanges=(), bindings=()))
    with pytest.raises(AccessRefusedError, match=rf"does not have the {missing} '{scratch.prefix}\..*setup"):
        await scratch.bus(stranger).declare(WORK_TOPOLOGY)


async def test_a_binding_needs_what_it_binds_for_who_may_not_bind_too(
    scratch: Scratch, private_node: PrivateNode
) -> None:
    private_node.management.add_user("nobody", "nobody")
    private_node.management.set_permissions("nobody")
    await scratch.bus().declare(WORK_TOPOLOGY)
    nobody = scratch.bus(private_node.amqp_url(user="nobody"))
    await nobody.declare(WORK_TOPOLOGY)
    with pytest.raises(AccessRefusedError, match="does not have the binding"):
        await nobody.declare(Topology(bindings=(Binding("ktrdr.nowhere", WORK, "x"),)))
    private_node.management.delete_user("nobody")


async def test_what_an_operator_has_deleted_is_declared_again(
    scratch: Scratch, private_node: PrivateNode
) -> None:
    bus = await scratch.working_bus()
    await publish(bus, "lost with the queue")
    private_node.management.delete_queue(scratch.wire(WORK))
    private_node.management.delete_exchange(scratch.wire(WORK_TOPOLOGY.exchanges[0].name))
    with pytest.raises(BusError):
        await publish(bus, "for nobody")
    await bus.declare(WORK_TOPOLOGY)
    await publish(bus, "m")
    assert await drain(bus) == ["m"]


async def test_an_exclusive_queue_is_taken_until_its_owner_is_gone(scratch: Scratch) -> None:
    one, two = scratch.bus(), scratch.bus()
    await one.declare(shared_topology())
    await one.declare(agent_topology("host-a"))
    with pytest.raises(QueueTakenError):
        await two.declare(agent_topology("host-a"))
    await one.close()
    await two.declare(agent_topology("host-a"))


async def test_installations_of_different_prefix_do_not_meet(scratch: Scratch) -> None:
    ours = await scratch.working_bus()
    other = await scratch.working_bus(prefix=f"{scratch.prefix}.b")
    await publish(ours, "ours")
    await publish(other, "theirs")
    assert await drain(ours) == ["ours"]
    assert await drain(other) == ["theirs"]
