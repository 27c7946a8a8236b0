"""A run that was given up and is back goes on, unless another has taken its place: no work thrown away."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from ktrdr.backend.instances import BROKER_OWNER
from ktrdr.backend.states import State
from ktrdr.events import BlobRef, CheckpointSaved, FailureCause
from tests.unit.backend_cases import Run, ScriptedAgent, World, started


@pytest.fixture
async def world(tmp_path: Path, usual_database_url: str) -> AsyncIterator[World]:
    async with started(tmp_path, database_url=usual_database_url, backend={"owner": BROKER_OWNER}) as world:
        yield world


async def _detached(world: World, **wish: object) -> tuple[Run, ScriptedAgent]:
    """A run whose lease has expired; its agent takes no requests any more, another could."""
    run = await world.running(**wish)
    await world.pass_time(32)
    assert (world.get(run).state, world.get(run).attempt) == (State.QUEUED, 2)
    return run, world.agent


async def test_a_run_that_is_back_before_another_began_holds_the_operation_again(world: World) -> None:
    run, agent = await _detached(world)
    await agent.present(run)
    await world.pass_time()
    operation = world.get(run)
    assert (operation.state, operation.attempt, operation.claim_id) == (State.RUNNING, 1, run.claim_id)
    assert operation.message is None
    assert world.story(run)[-1] == "reconciled"
    await agent.progress(run, 5)
    await agent.finish(run)
    await world.pass_time()
    assert world.get(run).state is State.COMPLETED
    assert [event.claim_id for event in agent.persisted()] == [run.claim_id]


async def test_its_lease_is_followed_again(world: World) -> None:
    run, agent = await _detached(world)
    await agent.present(run)
    await world.pass_time(29)
    assert world.get(run).state is State.RUNNING
    await world.pass_time(4)
    assert (world.get(run).state, world.get(run).attempt) == (State.QUEUED, 3)


async def test_who_takes_the_request_that_is_not_needed_any_more_is_told_to_stop(world: World) -> None:
    run, agent = await _detached(world)
    await agent.present(run)
    await world.pass_time()
    late = await agent.take()
    await world.pass_time()
    assert late.request.attempt == 2
    assert [stop.claim_id for stop in agent.stops()] == [late.claim_id]
    assert world.get(run).claim_id == run.claim_id


async def test_the_number_of_the_attempt_that_was_not_needed_is_not_given_again(world: World) -> None:
    run, agent = await _detached(world)
    await agent.present(run)
    await world.pass_time()
    late = await agent.take()
    await agent.fail(run)
    await world.pass_time(5)
    assert world.get(run).attempt == 3
    # What the late claim says now is of an attempt that it never held.
    await agent.present(late)
    await agent.cancelled(late)
    await world.pass_time()
    operation = world.get(run)
    assert (operation.state, operation.attempt, operation.claim_id) == (State.QUEUED, 3, None)
    third = await agent.take()
    await agent.finish(third)
    await world.pass_time()
    assert world.get(run).state is State.COMPLETED


async def test_a_silence_costs_no_attempt_if_the_run_went_on(world: World) -> None:
    run = await world.running(max_attempts=2)
    for _ in range(5):
        await world.pass_time(32)
        assert world.get(run).state is State.QUEUED
        await world.agent.present(run)
        await world.pass_time()
        assert world.get(run).state is State.RUNNING
    await world.agent.fail(run)
    await world.pass_time(100)
    assert world.get(run).state is State.QUEUED
    while world.agent.waiting:
        last = await world.agent.take()
        await world.pass_time()
    assert last.request.attempt == world.get(run).attempt
    await world.agent.fail(last)
    await world.pass_time(100)
    assert world.get(run).state is State.FAILED


async def test_a_run_that_is_back_after_another_began_goes_on_beside_it_and_the_first_model_wins(
    world: World,
) -> None:
    run, agent = await _detached(world)
    second = await agent.take()
    await world.pass_time()
    await agent.present(run)
    await world.pass_time()
    assert (world.get(run).attempt, world.get(run).claim_id) == (2, second.claim_id)
    assert agent.stops() == []
    await agent.finish(run)
    await world.pass_time()
    assert world.get(run).state is State.COMPLETED
    assert [stop.claim_id for stop in agent.stops()] == [second.claim_id]


async def test_of_two_detached_runs_the_first_that_is_back_holds_the_operation(world: World) -> None:
    first, agent = await _detached(world)
    second = await agent.take()
    await world.pass_time(35)
    assert (world.get(first).state, world.get(first).attempt) == (State.QUEUED, 3)
    await agent.present(second)
    await agent.present(first)
    await world.pass_time()
    assert (world.get(first).attempt, world.get(first).claim_id) == (2, second.claim_id)
    assert agent.stops() == []


async def test_a_run_that_has_ended_is_not_taken_for_one_that_is_back(world: World) -> None:
    run = await world.running()
    await world.agent.fail(run)
    await world.pass_time(0.2)
    await world.agent.present(run)  # until it knows that its failure has arrived
    await world.pass_time()
    assert (world.get(run).state, world.get(run).attempt) == (State.QUEUED, 2)


async def test_a_claim_that_never_held_the_attempt_is_not_taken_for_one_that_is_back(world: World) -> None:
    run, _ = await _detached(world)
    other = await world.other_agent()
    stranger = other.claim(run.request)
    await other.present(stranger)
    await world.pass_time()
    assert world.get(run).state is State.QUEUED
    assert [stop.claim_id for stop in other.stops()] == [stranger.claim_id]


async def test_a_checkpoint_tells_that_a_run_is_back_too(world: World) -> None:
    run, agent = await _detached(world)
    checkpoint = BlobRef(uri=f"blob:{'1' * 64}", sha256="1" * 64, size=10)
    await agent.say(CheckpointSaved(**run.token, epoch=3, checkpoint=checkpoint))
    await world.pass_time()
    assert (world.get(run).state, world.get(run).attempt) == (State.RUNNING, 1)
    await agent.fail(run, FailureCause.AGENT_RESTARTED)
    await world.pass_time()
    requests = [await agent.request() for _ in range(agent.waiting)]
    assert requests[-1].resume_from == checkpoint


async def test_a_cancel_of_a_detached_run_is_told_when_it_is_back(world: World) -> None:
    run, agent = await _detached(world)
    await world.backend.cancel(run.request.operation_id, "enough")
    await world.pass_time()
    agent.told.clear()
    await agent.present(run)
    await world.pass_time()
    assert [stop.claim_id for stop in agent.stops()] == [run.claim_id]
    assert world.get(run).state is State.CANCELLED


async def test_an_acceptance_that_comes_late_tells_that_a_run_is_back_too(world: World) -> None:
    run, agent = await _detached(world)
    await agent.accept(run)
    await world.pass_time()
    assert (world.get(run).state, world.get(run).claim_id) == (State.RUNNING, run.claim_id)


async def test_progress_is_that_of_the_run_that_is_back_though_a_later_one_was_further(world: World) -> None:
    first, agent = await _detached(world)
    seen: list[tuple[int, int]] = []

    async def look() -> None:
        async for record in world.backend.watch(first.request.operation_id):
            progress = record.progress
            seen.append((progress.attempt, progress.sequence) if progress is not None else (0, 0))

    looking = asyncio.create_task(look())
    second = await agent.take()
    await world.pass_time()
    await agent.progress(second, 70)
    await world.pass_time(35)
    await agent.present(first)
    await world.pass_time()
    await agent.progress(first, 50)
    await world.pass_time()
    await agent.progress(second, 80)  # whose claim holds nothing any more
    await agent.progress(first, 49)
    await world.pass_time()
    assert seen[-1] == (1, 50)
    progress = world.get(first).progress
    assert progress is not None
    assert (progress.attempt, progress.sequence) == (1, 50)
    await agent.finish(first)
    await world.pass_time()
    await looking
