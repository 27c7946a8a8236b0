"""Declaring exchanges, queues and bindings."""

import pytest

from ktrdr.bus.topology import (
    EVENTS,
    ExchangeKind,
    QueueKind,
    agent_topology,
    shared_topology,
)
from ktrdr.errors import BusError, BusUnavailableError, QueueTakenError, UnroutableError
from tests.contract.client import Client, receive_texts
from tests.contract.harness import BrokerHarness


async def test_declaring_the_same_again_changes_nothing(client: Client, other: Client) -> None:
    await client.declare_bound_queue("work", max_length=10)
    await client.publish_all("kept")
    await client.declare_bound_queue("work", max_length=10)
    await other.declare_bound_queue("work", max_length=10)
    await client.publish_all("once")
    assert await other.drain_texts("work") == ["kept", "once"]


async def test_a_queue_with_other_arguments_is_refused(client: Client, other: Client) -> None:
    await client.declare_queue("work", max_length=10)
    with pytest.raises(BusError):
        await other.declare_queue("work", max_length=11)


async def test_a_queue_of_another_kind_is_refused(client: Client, other: Client) -> None:
    await client.declare_queue("work", QueueKind.QUORUM)
    with pytest.raises(BusError):
        await other.declare_queue("work", QueueKind.CLASSIC)


async def test_an_exchange_of_another_kind_is_refused(client: Client, other: Client) -> None:
    await client.declare_exchange("in", ExchangeKind.DIRECT)
    with pytest.raises(BusError):
        await other.declare_exchange("in", ExchangeKind.FANOUT)


async def test_a_connection_works_on_after_a_declaration_was_refused(client: Client, other: Client) -> None:
    await client.declare_bound_queue("work", max_length=10)
    with pytest.raises(BusError):
        await other.declare_queue("work", max_length=11)
    await other.publish_all("still here")
    assert await other.drain_texts("work") == ["still here"]


async def test_a_binding_needs_its_exchange_and_its_queue(client: Client) -> None:
    await client.declare_bound_queue("work")
    with pytest.raises(BusError):
        await client.bind("no exchange", "work")
    with pytest.raises(BusError):
        await client.bind("in", "no queue")


async def test_a_dead_letter_exchange_may_be_declared_later(client: Client) -> None:
    await client.declare_bound_queue("work", dead_letter_exchange="dead")
    await client.declare_graveyard()
    await client.publish_all("bad")
    consumer = await client.consume()
    delivery = await anext(consumer)
    await delivery.reject("unreadable")
    assert await client.drain_texts("graves") == ["bad"]


async def test_an_exclusive_queue_is_closed_to_other_connections(client: Client, other: Client) -> None:
    await client.declare_queue("mine", QueueKind.CLASSIC, exclusive=True)
    with pytest.raises(QueueTakenError):
        await other.consume("mine")
    with pytest.raises(QueueTakenError):
        await other.declare_queue("mine", QueueKind.CLASSIC, exclusive=True)


async def test_an_exclusive_queue_and_its_bindings_vanish_with_their_connection(
    harness: BrokerHarness, client: Client
) -> None:
    short_lived = Client(harness, await harness.connect())
    await short_lived.declare_bound_queue("mine", QueueKind.CLASSIC, exclusive=True)
    await client.publish_all("lost with the queue", key="mine")
    await short_lived.close()
    with pytest.raises(UnroutableError):
        await client.publish_all("for nobody", key="mine")
    await client.declare_queue("mine", QueueKind.CLASSIC, exclusive=True)
    with pytest.raises(UnroutableError):
        await client.publish_all("not bound yet", key="mine")
    assert await client.drain_texts("mine") == []
    await client.bind("in", "mine", "mine")
    await client.publish_all("for the new one", key="mine")
    assert await client.drain_texts("mine") == ["for the new one"]


async def test_queues_and_messages_outlive_the_connections(harness: BrokerHarness) -> None:
    first = Client(harness, await harness.connect())
    await first.declare_bound_queue("work")
    await first.publish_all("kept")
    await first.close()
    second = Client(harness, await harness.connect())
    assert await second.drain_texts("work") == ["kept"]
    await second.close()


async def test_there_is_no_consuming_from_a_queue_that_was_not_declared(client: Client) -> None:
    with pytest.raises(BusError):
        await client.consume("nowhere")


async def test_the_protocols_own_topology_can_be_declared_by_all(client: Client, other: Client) -> None:
    await client.bus.declare(shared_topology())
    await other.bus.declare(shared_topology())
    await other.bus.declare(agent_topology("host-a"))
    await other.bus.declare(agent_topology("host-a"))


async def test_a_closed_connection_declares_and_consumes_nothing(client: Client) -> None:
    await client.declare_queue("work")
    await client.close()
    await client.close()
    with pytest.raises(BusUnavailableError):
        await client.declare_queue("work")
    with pytest.raises(BusUnavailableError):
        await client.consume("work")
    with pytest.raises(BusUnavailableError):
        await client.publish_all("late", exchange=EVENTS)


async def test_a_closed_connection_leaves_the_others_alone(client: Client, other: Client) -> None:
    await client.declare_bound_queue("work")
    consumer = await client.consume()
    await other.close()
    await client.publish_all("still")
    assert await receive_texts(consumer, 1) == ["still"]
