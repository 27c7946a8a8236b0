"""A request that no agent took comes back, and the history of its operation says why."""

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ktrdr.backend.instances import BROKER_OWNER
from ktrdr.backend.states import State
from ktrdr.bus.dead_letters import REASON_HEADER
from ktrdr.bus.memory import MemoryBus
from ktrdr.bus.topology import BACKEND_RETURNED, DEAD_LETTERS, RETURNED, lane_queue
from ktrdr.events import FailureCause
from ktrdr.events.message import Message
from tests.unit.backend_cases import ScriptedAgent, World, started


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    """A backend on a broker, and an agent that takes requests only when it is told to."""
    async with started(tmp_path, backend={"owner": BROKER_OWNER}) as world:
        await world.agent.stop()
        world.agent = ScriptedAgent(world.broker, world.clock, lanes=())
        await world.agent.start()
        yield world


async def _lane(world: World, lane: str = "any") -> Any:
    bus = MemoryBus(world.broker)
    return bus, await bus.consume(lane_queue(lane), prefetch=1, consumer_tag="test")


async def _give_back(world: World, times: int) -> None:
    """Take the request out of the lane and give it back, so many times."""
    bus, consumer = await _lane(world)
    for _ in range(times):
        await (await anext(consumer)).nack()
    await bus.close()


async def _kill_who_takes_it(world: World, times: int) -> None:
    """Take the request out of the lane and die with it, so many times."""
    for _ in range(times):
        bus, consumer = await _lane(world)
        await anext(consumer)
        await bus.close()


async def _in_lane(world: World) -> Message:
    bus, consumer = await _lane(world)
    message: Message = (await anext(consumer)).message
    await bus.close()
    return message


async def _return(world: World, message: Message, reason: str) -> None:
    bus = MemoryBus(world.broker)
    letter = replace(message, headers={**message.headers, REASON_HEADER: reason}, expiration_s=None)
    await bus.publish(letter, exchange=RETURNED, routing_key="any", mandatory=True, timeout_s=1)
    await bus.close()
    await world.pass_time()


def _notes(world: World, operation_id: str, kind: str) -> list[str]:
    return [entry.message for entry in world.store.history(operation_id) if entry.kind == kind]


# --- nobody takes it


async def test_what_nobody_takes_is_requested_again_and_the_history_says_why(world: World) -> None:
    operation_id = await world.submit(lane="gpu")
    await world.pass_time(300)
    assert _notes(world, operation_id, "not_accepted") == [
        "nobody accepted attempt 1 within 300 s: no agent serves lane gpu; it is requested again"
    ]
    operation = world.get(operation_id)
    assert (operation.state, operation.attempt) == (State.QUEUED, 1)
    assert world.broker.queue_depth(lane_queue("gpu")) == 1
    assert world.broker.queue_depth(BACKEND_RETURNED) == 0


async def test_it_is_never_twice_in_its_lane_however_often_it_comes_back(world: World) -> None:
    operation_id = await world.submit()
    for times in range(1, 6):
        await world.pass_time(301)
        assert world.broker.queue_depth(lane_queue("any")) == 1
        assert len(_notes(world, operation_id, "not_accepted")) == times
    assert world.get(operation_id).attempt == 1


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"slots_busy": 1}, "every agent of lane any is busy (1 of 1 slots): agent-1"),
        ({"state": "draining"}, "no agent of lane any takes work: agent-1 is draining"),
        ({"state": "stopped"}, "no agent of lane any is there: agent-1 stopped or fell silent"),
        ({"protocol_version": 9}, "no agent of lane any speaks protocol 1: agent-1 must be upgraded"),
        ({"lanes": ("gpu",)}, "no agent serves lane any"),
    ],
)
async def test_the_history_names_what_presence_tells(world: World, fields: dict[str, Any], why: str) -> None:
    operation_id = await world.submit()
    await world.pass_time(290)
    await world.agent.present(**fields)
    await world.pass_time(11)
    (note,) = _notes(world, operation_id, "not_accepted")
    assert why in note


async def test_a_copy_of_a_request_that_came_back_before_decides_nothing(world: World) -> None:
    operation_id = await world.submit()
    message = await _in_lane(world)
    await _return(world, message, "expired")
    before = world.get(operation_id)
    for _ in range(3):
        await _return(world, message, "expired")
        await _return(world, message, "delivery_limit")
    assert world.get(operation_id) == before
    assert len(_notes(world, operation_id, "not_accepted")) == 1


@pytest.mark.parametrize("how", ["accepted", "cancelled", "completed"])
async def test_what_comes_back_of_an_operation_that_needs_it_no_more_is_forgotten(
    world: World, how: str
) -> None:
    operation_id = await world.submit()
    message = await _in_lane(world)
    found = world.store.find_request(operation_id)
    assert found is not None
    run = world.agent.claim(found[1])
    match how:
        case "accepted":
            await world.agent.accept(run)
        case "cancelled":
            await world.backend.cancel(operation_id, "enough")
        case _:
            await world.agent.finish(run)
    await world.pass_time()
    before = world.get(operation_id)
    for reason in ("expired", "delivery_limit"):
        await _return(world, message, reason)
    assert world.get(operation_id) == before
    assert world.broker.queue_depth(BACKEND_RETURNED) == 0
    assert world.broker.queue_depth(DEAD_LETTERS) == 0


# --- it kills who takes it


async def test_what_kills_every_agent_that_takes_it_fails_with_the_whole_story(world: World) -> None:
    operation_id = await world.submit()
    for attempt in (1, 2, 3):
        assert world.get(operation_id).attempt == attempt
        await _kill_who_takes_it(world, 6)
        await world.pass_time(5)
    operation = world.get(operation_id)
    assert (operation.state, operation.cause) == (State.FAILED, FailureCause.NOT_ACCEPTED)
    assert operation.message == (
        "attempt 3 was given back, or killed who took it, too often (attempt 3 of 3)"
    )
    assert len(_notes(world, operation_id, "attempt_failed")) == 3
    assert world.broker.queue_depth(lane_queue("any")) == 0


async def test_what_agents_without_a_gpu_give_back_costs_no_attempt_and_goes_out_later(world: World) -> None:
    await world.agent.present(device="cpu")
    operation_id = await world.submit(require_gpu=True)
    await _give_back(world, 6)
    await world.pass_time(1)
    assert _notes(world, operation_id, "not_accepted") == [
        "attempt 1 was given back by agents that cannot run it: agent-1; it is requested again in 30 s"
    ]
    assert world.get(operation_id).attempt == 1
    assert world.broker.queue_depth(lane_queue("any")) == 0
    await world.pass_time(30)
    assert world.broker.queue_depth(lane_queue("any")) == 1


async def test_what_agents_of_another_version_give_back_costs_no_attempt(world: World) -> None:
    await world.agent.present(protocol_version=2)
    operation_id = await world.submit()
    await _give_back(world, 6)
    await world.pass_time(1)
    assert world.get(operation_id).attempt == 1
    assert len(_notes(world, operation_id, "not_accepted")) == 1


# --- it cannot be read


async def test_what_an_agent_rejects_without_words_is_a_dead_letter_and_costs_an_attempt(
    world: World,
) -> None:
    operation_id = await world.submit()
    await _return(world, await _in_lane(world), "rejected")
    assert world.get(operation_id).attempt == 2
    assert world.broker.queue_depth(DEAD_LETTERS) == 1
    assert "could not read it" in _notes(world, operation_id, "attempt_failed")[0]


async def test_what_came_back_and_cannot_be_read_is_a_dead_letter_with_its_reason(world: World) -> None:
    operation_id = await world.submit()
    message = await _in_lane(world)
    await _return(world, replace(message, body=b"\xc1"), "delivery_limit")
    await _return(world, replace(message, type="ktrdr.training.accepted.v1"), "delivery_limit")
    assert world.get(operation_id).attempt == 1
    assert world.broker.queue_depth(DEAD_LETTERS) == 2


async def test_an_event_that_no_lane_holds_is_a_dead_letter(world: World) -> None:
    run_of = await world.submit()
    found = world.store.find_request(run_of)
    assert found is not None
    run = world.agent.claim(found[1])
    bus = MemoryBus(world.broker)
    from ktrdr.events import Envelope, TrainingFailed, encode

    event = TrainingFailed(**run.token, cause=FailureCause.RUNNER_CRASHED, message="it broke")
    message = encode(Envelope(event, event_id="e-1", sender="agent-1", occurred_at=world.clock.now()))
    await bus.close()
    await _return(world, message, "rejected")
    assert world.broker.queue_depth(DEAD_LETTERS) == 1
    assert world.get(run_of).attempt == 1


async def test_a_request_that_comes_back_for_no_reason_that_is_known_goes_out_later(world: World) -> None:
    operation_id = await world.submit()
    message = await _in_lane(world)
    bus, consumer = await _lane(world)
    await (await anext(consumer)).ack()
    await bus.close()
    await _return(world, message, "sent by\nhand")
    assert _notes(world, operation_id, "not_accepted") == [
        "attempt 1 came back: sent by hand; it is requested again in 30 s"
    ]
