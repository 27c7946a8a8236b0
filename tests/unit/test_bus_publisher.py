"""Events onto the bus."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from ktrdr.bus.dead_letters import REASON_HEADER
from ktrdr.bus.memory import MemoryBroker, MemoryBus
from ktrdr.bus.publisher import EventPublisher
from ktrdr.bus.topology import (
    BACKEND_EVENTS,
    BACKEND_RETURNED,
    agent_topology,
    control_queue,
    lane_queue,
    shared_topology,
)
from ktrdr.errors import BusUnavailableError, UnroutableError
from ktrdr.events import Event, decode
from ktrdr.ids import RandomIds
from tests.contract.virtual_clock import VirtualClock
from tests.unit.events_cases import EXAMPLES, example


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock()


@pytest_asyncio.fixture
async def bus(clock: VirtualClock) -> AsyncIterator[MemoryBus]:
    bus = MemoryBus(MemoryBroker(clock))
    await bus.declare(shared_topology())
    await bus.declare(agent_topology("host-a"))
    yield bus
    await bus.close()


@pytest.fixture
def publisher(bus: MemoryBus, clock: VirtualClock) -> EventPublisher:
    return EventPublisher(bus, sender="host-agent@here", ids=RandomIds(), clock=clock, timeout_s=5.0)


async def test_an_event_arrives_as_it_was_said(
    bus: MemoryBus, publisher: EventPublisher, clock: VirtualClock
) -> None:
    await clock.advance(12.25)
    event_id = await publisher.publish(example("ktrdr.training.failed"))
    delivery = await anext(await bus.consume(BACKEND_EVENTS, prefetch=1, consumer_tag="backend"))
    envelope = decode(delivery.message)
    assert envelope.event == example("ktrdr.training.failed")
    assert envelope.event_id == event_id
    assert envelope.sender == "host-agent@here"
    assert envelope.occurred_at == clock.now()


@pytest.mark.parametrize("event", EXAMPLES, ids=lambda event: event.type)
async def test_every_event_can_be_published(publisher: EventPublisher, event: Event) -> None:
    await publisher.publish(event)


async def test_an_event_that_is_said_again_keeps_its_id(bus: MemoryBus, publisher: EventPublisher) -> None:
    event = example("ktrdr.training.failed")
    first = await publisher.publish(event)
    assert await publisher.publish(event, event_id=first) == first
    assert await publisher.publish(event) != first
    consumer = await bus.consume(BACKEND_EVENTS, prefetch=3, consumer_tag="backend")
    ids = [decode((await anext(consumer)).message).event_id for _ in range(3)]
    assert ids[:2] == [first, first]
    assert ids[2] != first


async def test_a_request_that_nobody_takes_in_time_comes_back_to_the_backend(
    bus: MemoryBus, publisher: EventPublisher, clock: VirtualClock
) -> None:
    await publisher.publish(example("ktrdr.training.requested"), expiration_s=300)
    consumer = await bus.consume(BACKEND_RETURNED, prefetch=1, consumer_tag="backend")
    await clock.advance(299)
    await clock.advance(2)
    message = (await anext(consumer)).message
    assert message.headers[REASON_HEADER] == "expired"
    assert decode(message).event == example("ktrdr.training.requested")


async def test_a_request_for_a_lane_that_nobody_declared_is_an_error(publisher: EventPublisher) -> None:
    request = example("ktrdr.training.requested").model_copy(update={"lane": "tpu"})
    with pytest.raises(UnroutableError, match="tpu"):
        await publisher.publish(request)


async def test_a_word_to_agents_that_are_away_is_no_error(clock: VirtualClock) -> None:
    bus = MemoryBus(MemoryBroker(clock))
    await bus.declare(shared_topology())
    publisher = EventPublisher(bus, sender="backend@here", ids=RandomIds(), clock=clock, timeout_s=5.0)
    await publisher.publish(example("ktrdr.control.cancel_requested"))
    await bus.close()


async def test_a_word_to_an_agent_reaches_its_own_queue(bus: MemoryBus, publisher: EventPublisher) -> None:
    await publisher.publish(example("ktrdr.control.cancel_requested"))
    delivery = await anext(await bus.consume(control_queue("host-a"), prefetch=1, consumer_tag="agent"))
    assert decode(delivery.message).event == example("ktrdr.control.cancel_requested")


async def test_a_closed_bus_is_an_error(bus: MemoryBus, publisher: EventPublisher) -> None:
    await bus.close()
    with pytest.raises(BusUnavailableError):
        await publisher.publish(example("ktrdr.training.failed"))


async def test_a_request_waits_in_its_lane(bus: MemoryBus, publisher: EventPublisher) -> None:
    await publisher.publish(example("ktrdr.training.requested"))
    delivery = await anext(await bus.consume(lane_queue("gpu"), prefetch=1, consumer_tag="slot-1"))
    assert decode(delivery.message).event == example("ktrdr.training.requested")
