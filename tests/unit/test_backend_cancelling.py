"""A cancel ends the same way whenever it comes: no model, and every run told to stop until it does."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from ktrdr.backend.states import State
from ktrdr.bus.memory import MemoryBroker
from ktrdr.clock import SystemClock
from ktrdr.errors import OperationNotFoundError
from ktrdr.events import ModelDiscarded, ModelPersisted
from tests.unit.backend_cases import (
    ScriptedAgent,
    World,
    eventually,
    real_backend,
    settings_in,
    started,
    wish,
)


@pytest.fixture
async def world(tmp_path: Path, usual_database_url: str) -> AsyncIterator[World]:
    async with started(tmp_path, database_url=usual_database_url) as world:
        yield world


async def _cancel(world: World, operation_id: str) -> State:
    state = (await world.backend.cancel(operation_id, "enough")).state
    await world.pass_time()
    return state


async def test_what_is_not_dispatched_yet_is_cancelled_and_never_requested(tmp_path: Path) -> None:
    world = World.make(tmp_path)
    operation_id = (await world.backend.submit(wish())).operation.operation_id
    assert await _cancel(world, operation_id) is State.CANCELLED
    await world.start()
    await world.pass_time()
    assert world.agent.waiting == 0
    assert world.get(operation_id).message == "enough"
    await world.stop()


async def test_what_waits_in_a_lane_is_cancelled_and_who_takes_it_later_is_told_to_stop(world: World) -> None:
    operation_id = await world.submit()
    assert await _cancel(world, operation_id) is State.CANCELLED
    late = await world.agent.take()
    await world.pass_time()
    assert late.claim_id in [stop.claim_id for stop in world.agent.stops()]
    assert world.get(operation_id).state is State.CANCELLED


async def test_who_has_taken_it_without_our_knowing_is_told_to_stop_at_once(world: World) -> None:
    operation_id = await world.submit()
    await world.agent.request()
    await _cancel(world, operation_id)
    assert [(stop.attempt, stop.claim_id) for stop in world.agent.stops()] == [(1, None)]


async def test_what_waits_for_a_retry_is_cancelled_and_not_requested_again(world: World) -> None:
    run = await world.running()
    await world.agent.fail(run)
    await world.pass_time(0.2)
    assert await _cancel(world, run.request.operation_id) is State.CANCELLED
    await world.pass_time(10)
    assert world.agent.waiting == 0


async def test_what_runs_is_cancelled_when_its_run_says_so(world: World) -> None:
    run = await world.running()
    assert await _cancel(world, run.request.operation_id) is State.CANCELLING
    assert [stop.attempt for stop in world.agent.stops()] == [1]
    await world.agent.cancelled(run)
    await world.pass_time()
    operation = world.get(run)
    assert (operation.state, operation.message) == (State.CANCELLED, "enough")
    assert world.story(run)[-2:] == ["cancel_requested", "cancelled"]


async def test_a_model_that_comes_after_the_cancel_is_discarded_and_ends_the_operation(world: World) -> None:
    run = await world.running()
    await _cancel(world, run.request.operation_id)
    await world.agent.finish(run)
    await world.pass_time()
    assert world.get(run).state is State.CANCELLED
    assert [event.claim_id for event in world.agent.discarded()] == [run.claim_id]
    assert world.store.models.list_models() == []
    assert not (world.settings.models_dir / "momentum").exists()


async def test_a_model_that_came_before_the_cancel_stays(world: World) -> None:
    run = await world.running()
    await world.agent.finish(run)
    await world.pass_time()
    assert await _cancel(world, run.request.operation_id) is State.COMPLETED
    assert world.agent.stops() == []


async def test_a_run_that_fails_instead_of_stopping_ends_cancelled(world: World) -> None:
    run = await world.running()
    await _cancel(world, run.request.operation_id)
    await world.agent.fail(run)
    await world.pass_time(5)
    assert world.get(run).state is State.CANCELLED
    assert world.agent.waiting == 0


async def test_a_run_that_never_answers_ends_cancelled_with_its_lease(world: World) -> None:
    run = await world.running()
    await _cancel(world, run.request.operation_id)
    await world.pass_time(29)
    assert world.get(run).state is State.CANCELLING
    await world.pass_time(3)
    assert world.get(run).state is State.CANCELLED


async def test_who_missed_that_it_is_to_stop_is_told_again_with_each_presence(world: World) -> None:
    run = await world.running()
    await _cancel(world, run.request.operation_id)
    world.agent.told.clear()
    for _ in range(3):
        await world.agent.present(run)
        await world.pass_time()
    assert [stop.claim_id for stop in world.agent.stops()] == [run.claim_id] * 3
    await world.agent.cancelled(run)
    await world.pass_time()
    world.agent.told.clear()
    await world.agent.present(run)
    await world.pass_time()
    assert [stop.reason for stop in world.agent.stops()] == ["the operation is cancelled"]


async def test_a_cancel_that_is_asked_for_twice_is_said_twice_but_noted_once(world: World) -> None:
    run = await world.running()
    await _cancel(world, run.request.operation_id)
    assert await _cancel(world, run.request.operation_id) is State.CANCELLING
    assert len(world.agent.stops()) == 2
    assert world.story(run).count("cancel_requested") == 1


async def test_detached_runs_of_earlier_attempts_are_told_to_stop_too(world: World) -> None:
    first = await world.running()
    await world.pass_time(32)
    second = await world.agent.take()
    await world.pass_time()
    assert second.request.attempt == 2
    await _cancel(world, first.request.operation_id)
    assert [stop.attempt for stop in world.agent.stops()] == [1, 2]
    await world.agent.cancelled(second)
    await world.pass_time()
    assert world.get(first).state is State.CANCELLED
    await world.agent.finish(first)
    await world.pass_time()
    assert len(world.agent.discarded()) == 1


async def test_the_stop_of_an_earlier_attempt_is_not_taken_for_that_of_the_current_one(world: World) -> None:
    first = await world.running()
    await world.pass_time(32)
    second = await world.agent.take()
    await world.pass_time()
    await _cancel(world, first.request.operation_id)
    await world.agent.finish(first)
    await world.pass_time()
    assert world.get(first).state is State.CANCELLING
    await world.agent.cancelled(second)
    await world.pass_time()
    assert world.get(first).state is State.CANCELLED


async def test_a_cancel_of_nothing_is_an_error(world: World) -> None:
    with pytest.raises(OperationNotFoundError):
        await world.backend.cancel("op-nobody-knows", "enough")
    with pytest.raises(OperationNotFoundError):
        world.store.cancel("op-nobody-knows", "enough")


async def test_a_cancel_by_another_process_reaches_the_run_through_the_database(world: World) -> None:
    run = await world.running()
    assert world.store.cancel(run.request.operation_id, "from elsewhere").state is State.CANCELLING
    await world.pass_time(0.15)
    assert [stop.reason for stop in world.agent.stops()] == ["from elsewhere"]


async def test_a_cancel_that_races_with_the_model_has_one_outcome_everywhere(tmp_path: Path) -> None:
    settings = settings_in(tmp_path)
    broker = MemoryBroker(SystemClock())
    backend, store = real_backend(settings, broker)
    agent = ScriptedAgent(broker, SystemClock())
    await agent.start()
    outcomes = set()
    async with backend:
        for number in range(30):
            operation_id = (await backend.submit(wish(seed=number))).operation.operation_id
            run = await agent.take()
            await eventually(lambda run=run: store.get(run.request.operation_id).claim_id, "the grant")
            event = agent.model(run)
            # So that now the one is first, now the other, and now both are under way.
            head_start_s = 0.002 * (number % 8)
            saying = asyncio.create_task(agent.say(event))
            await asyncio.sleep(head_start_s)
            await asyncio.to_thread(store.cancel, operation_id, "enough")
            await saying
            ended = await asyncio.wait_for(backend.wait(operation_id), 60)
            outcomes.add(ended.state)
            answers = await eventually(lambda: agent.persisted() + agent.discarded(), "the answer")
            model = store.models.of_operation(operation_id)
            if ended.state is State.COMPLETED:
                assert model is not None
                assert (settings.models_dir / model.name).is_dir()
                assert isinstance(answers[0], ModelPersisted)
            else:
                assert (ended.state, model) == (State.CANCELLED, None)
                assert isinstance(answers[0], ModelDiscarded)
            agent.told.clear()
    versions = sorted(path.name for path in (settings.models_dir / "momentum").glob("*_v*"))
    assert len(versions) == len(store.models.list_models(limit=100))
    assert outcomes <= {State.COMPLETED, State.CANCELLED}
    await agent.stop()
    store.close()
