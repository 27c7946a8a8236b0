"""A broker that is away, or lets nobody speak, costs no lease: who cannot be heard is not silent."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from ktrdr.backend.instances import BROKER_OWNER
from ktrdr.backend.sources import Sources
from ktrdr.backend.states import State
from ktrdr.bus.memory import MemoryBroker, MemoryBus
from ktrdr.bus.topology import (
    BACKEND_EVENTS,
    Exchange,
    ExchangeKind,
    Queue,
    QueueKind,
    Topology,
    shared_topology,
)
from ktrdr.errors import BusError
from ktrdr.ids import RandomIds
from tests.contract.virtual_clock import VirtualClock
from tests.unit.backend_cases import Line, World, started


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with started(tmp_path, **_on_a_line()) as world:
        yield world


def _on_a_line() -> dict[str, object]:
    clock = VirtualClock()
    broker = MemoryBroker(clock)
    line = Line(broker)
    return {
        "clock": clock,
        "broker": broker,
        "wrap": lambda bus: line,
        "backend": {"owner": BROKER_OWNER},
    }


def _line(world: World) -> Line:
    line = world.backend._bus
    assert isinstance(line, Line)
    return line


async def test_the_backend_goes_on_when_the_broker_is_back(world: World) -> None:
    run = await world.running()
    await _line(world).cut()
    await world.pass_time(5)
    assert world.backend._working is not None
    assert not world.backend._working.done()
    await world.agent.finish(run)
    waiting = await world.submit()
    assert world.get(waiting).state is State.PENDING
    _line(world).mend()
    await world.pass_time(7)
    assert world.get(run).state is State.COMPLETED
    assert world.get(waiting).state is State.QUEUED


async def test_no_lease_expires_however_long_the_broker_is_away(world: World) -> None:
    run = await world.running(max_attempts=1)
    await _line(world).cut()
    await world.pass_time(500)
    assert (world.get(run).state, world.get(run).attempt) == (State.RUNNING, 1)
    _line(world).mend()
    await world.pass_time(29)
    assert world.get(run).state is State.RUNNING
    await world.agent.present(run)
    await world.pass_time(29)
    assert world.get(run).state is State.RUNNING


async def test_who_stays_silent_when_the_broker_is_back_loses_the_attempt(world: World) -> None:
    run = await world.running()
    await _line(world).cut()
    await world.pass_time(500)
    _line(world).mend()
    await world.pass_time(29)
    assert world.get(run).attempt == 1
    await world.pass_time(15)
    assert (world.get(run).state, world.get(run).attempt) == (State.QUEUED, 2)


async def test_a_request_is_not_overdue_because_nobody_could_say_that_they_took_it(world: World) -> None:
    operation_id = await world.submit()
    run = world.agent.claim(await world.agent.request())
    await _line(world).cut()
    await world.pass_time(400)
    await world.agent.accept(run)
    _line(world).mend()
    await world.pass_time(7)
    assert world.get(operation_id).state is State.RUNNING
    assert "not_accepted" not in world.story(operation_id)


async def test_no_lease_expires_while_the_broker_takes_no_messages(world: World) -> None:
    run = await world.running()
    _line(world).blocked = True
    await world.pass_time(400)
    assert world.get(run).attempt == 1
    _line(world).blocked = False
    await world.pass_time(5)
    await world.agent.present(run)
    await world.pass_time(29)
    assert world.get(run).attempt == 1
    await world.pass_time(5)
    assert world.get(run).attempt == 2


async def test_what_is_lost_between_two_cuts_comes_again_and_is_handled_once(world: World) -> None:
    run = await world.running()
    await world.agent.finish(run)
    await _line(world).cut()  # in hand, perhaps handled, not acknowledged
    await world.pass_time(1)
    _line(world).mend()
    await world.pass_time(7)
    assert world.get(run).state is State.COMPLETED
    assert len(world.store.models.list_models()) == 1


async def test_a_cancel_takes_effect_when_the_connection_is_back(world: World) -> None:
    run = await world.running()
    await _line(world).cut()
    await world.backend.cancel(run.request.operation_id, "enough")
    await world.pass_time(60)
    assert world.get(run).state is State.CANCELLING
    assert world.agent.stops() == []
    _line(world).mend()
    await world.pass_time(6)
    assert [stop.attempt for stop in world.agent.stops()] == [1]


async def test_a_backend_starts_while_the_broker_is_away(tmp_path: Path) -> None:
    world = World.make(tmp_path, **_on_a_line())  # type: ignore[arg-type]
    await _line(world).cut()
    await world.backend.start()
    operation_id = await world.submit()
    await world.pass_time(60)
    _line(world).mend()
    await world.agent.start()
    await world.pass_time(7)
    assert world.get(operation_id).state is State.QUEUED
    assert world.agent.waiting == 1
    await world.stop()


async def test_something_else_under_our_names_is_told_at_the_start(tmp_path: Path) -> None:
    world = World.make(tmp_path, backend={"owner": BROKER_OWNER})
    other = Exchange("ktrdr.events", ExchangeKind.FANOUT)
    await world.backend._bus.declare(Topology(exchanges=(other,)))
    starting = asyncio.create_task(world.backend.start())
    await world.pass_time(10)
    with pytest.raises(BusError, match="other arguments"):
        await starting
    await world.backend.stop()
    world.store.close()


# --- a queue that is lost alone


def _own(world: World, kind: str) -> str:
    """The queue of that kind that the backend has for itself now."""
    owner = _line(world)._bus
    (name,) = [
        name
        for name, queue in world.broker._queues.items()
        if queue.owner is owner and name.endswith(f".{kind}")
    ]
    return name


async def _delete(world: World, queue: str) -> None:
    """Delete a queue as an operator might: its consumers end, and nothing is bound to it any more."""
    broker = world.broker
    lost = broker._queues.pop(queue)
    for exchange in broker._exchanges.values():
        for binding in [binding for binding in exchange.bindings if binding.queue == queue]:
            del exchange.bindings[binding]
    for consumer in list(lost._consumers):  # type: ignore[union-attr]
        consumer.end(keep_in_hand=True)
    await asyncio.sleep(0)


async def test_a_queue_that_is_deleted_is_declared_and_read_again(world: World) -> None:
    run = await world.running()
    await _delete(world, BACKEND_EVENTS)
    await world.pass_time(1)
    await world.agent.finish(run)
    await world.pass_time()
    assert world.get(run).state is State.COMPLETED


async def test_a_queue_that_is_lost_again_and_again_keeps_no_dead_claim_for_ever(world: World) -> None:
    run = await world.running()
    for _ in range(60):
        await _delete(world, _own(world, "presence"))
        await world.pass_time(10)
    assert world.get(run).attempt == 2


async def test_what_a_backend_hears_for_itself_ends_with_its_connection(world: World) -> None:
    shared = {queue.name for queue in shared_topology().queues}
    own = {_own(world, "progress"), _own(world, "presence")}
    assert own.isdisjoint(shared)
    await _line(world).cut()
    assert own.isdisjoint(world.broker._queues)
    _line(world).mend()
    await world.pass_time(7)
    assert {_own(world, "progress"), _own(world, "presence")}.isdisjoint(shared)


async def test_a_name_that_is_taken_is_replaced_at_once(world: World) -> None:
    run = await world.running()
    taken = {_own(world, "progress"), _own(world, "presence")}
    await _line(world).cut()
    # The broker takes the connection that was lost for alive.
    ghost = MemoryBus(world.broker)
    queues = tuple(Queue(name, QueueKind.CLASSIC, exclusive=True) for name in taken)
    await ghost.declare(Topology(queues=queues))
    _line(world).mend()
    await world.pass_time(7)
    await world.agent.progress(run, 5)
    await world.pass_time(1)
    assert (progress := world.get(run).progress) is not None
    assert progress.sequence == 5
    await world.agent.present(run)
    await world.pass_time(29)
    assert world.get(run).attempt == 1
    await ghost.close()


async def test_several_backends_on_one_broker_all_hear_who_is_there(world: World) -> None:
    second = Sources("elsewhere", RandomIds()).presence()
    bus = MemoryBus(world.broker)
    await bus.declare(second.topology)
    run = await world.running()
    await world.agent.present(run)
    assert world.broker.queue_depth(second.queue) == 1
    assert world.broker.queue_depth(_own(world, "presence")) == 0
    await bus.close()


async def test_an_exchange_that_is_deleted_is_declared_again(world: World) -> None:
    run = await world.running()
    del world.broker._exchanges["ktrdr.requests"]
    waiting = await world.submit()
    assert world.get(waiting).state is State.PENDING
    await world.pass_time(40)
    assert world.get(waiting).state is State.QUEUED
    await world.pass_time(30)
    assert world.get(run).attempt == 2


async def test_what_cannot_be_declared_is_tried_again_until_it_can(world: World) -> None:
    await _delete(world, BACKEND_EVENTS)
    await _line(world).declare(Topology(queues=(Queue(BACKEND_EVENTS),)))
    await world.pass_time(60)
    world.broker._queues.pop(BACKEND_EVENTS)
    await world.pass_time(7)
    run = await world.running()
    await world.agent.finish(run)
    await world.pass_time()
    assert world.get(run).state is State.COMPLETED
