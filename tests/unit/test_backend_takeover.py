"""Whoever lives goes on with what the dead have left."""

from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from ktrdr.backend.instances import Lock
from ktrdr.backend.states import State
from ktrdr.backend.tables import operations
from ktrdr.events import FailureCause
from tests.contract.virtual_clock import VirtualClock
from tests.unit.backend_cases import Run, World, started, wish


@pytest.fixture
async def world(tmp_path: Path, database_url: str) -> AsyncIterator[World]:
    async with started(tmp_path, database_url=database_url) as world:
        yield world


def _belongs_to(world: World, operation_id: str, instance: str | None) -> None:
    """Have the operation carried, and have been submitted to, another instance."""
    world.store.change(
        lambda work: work.connection.execute(
            update(operations)
            .where(operations.c.id == operation_id)
            .values(owner=instance, submitted_by=instance or "dead")
        )
    )


def _living(world: World, instance: str) -> Lock:
    return world.store.instances.register(instance)


async def _abandoned(world: World) -> Run:
    """A training that runs on an agent whose process dies."""
    run = await world.running()
    _belongs_to(world, run.request.operation_id, "dead")
    return run


@pytest.mark.parametrize("owner", ["dead", None])
async def test_what_waits_in_a_dead_lane_is_requested_again_without_costing_an_attempt(
    world: World, owner: str | None
) -> None:
    operation_id = await world.submit()
    await world.agent.request()
    _belongs_to(world, operation_id, owner)
    await world.pass_time(1.5)
    run = await world.agent.take()
    await world.pass_time()
    assert run.request.attempt == 1
    operation = world.get(operation_id)
    assert (operation.state, operation.owner) == (State.RUNNING, world.backend.instance)
    assert "taken_over" in world.story(operation_id)


async def test_what_a_living_process_carries_is_left_to_it(world: World) -> None:
    lock = _living(world, "other")
    operation_id = await world.submit()
    _belongs_to(world, operation_id, "other")
    before = world.get(operation_id)
    await world.pass_time(10)
    assert world.get(operation_id) == before
    lock.release()
    await world.pass_time(2)
    assert world.get(operation_id).owner == world.backend.instance


async def test_a_run_that_died_with_its_process_is_retried_if_no_agent_reports_it(world: World) -> None:
    run = await _abandoned(world)
    await world.pass_time(4)
    assert (world.get(run).state, world.get(run).attempt) == (State.RUNNING, 1)
    await world.pass_time(4)
    assert (world.get(run).state, world.get(run).attempt) == (State.QUEUED, 2)


async def test_an_agent_that_adopts_the_dead_one_s_claim_reports_it_and_it_is_retried_at_once(
    world: World,
) -> None:
    run = await _abandoned(world)
    await world.pass_time(1.5)
    await world.agent.fail(run, FailureCause.AGENT_RESTARTED)
    await world.pass_time(0.2)
    assert (await world.agent.request()).attempt == 2


async def test_a_model_in_the_spool_of_a_dead_agent_completes_the_operation(world: World) -> None:
    run = await _abandoned(world)
    await world.pass_time(1.5)
    await world.agent.finish(run)
    await world.pass_time()
    assert (world.get(run).state, world.get(run).attempt) == (State.COMPLETED, 1)
    assert len(world.agent.persisted()) == 1


async def test_a_model_in_a_spool_completes_it_even_before_it_is_taken_over(world: World) -> None:
    run = await _abandoned(world)
    await world.agent.finish(run)
    await world.pass_time(10)
    assert world.get(run).state is State.COMPLETED
    assert world.agent.waiting == 0


async def test_what_was_being_cancelled_is_cancelled_at_once(world: World) -> None:
    run = await world.running()
    await world.backend.cancel(run.request.operation_id, "enough")
    _belongs_to(world, run.request.operation_id, "dead")
    await world.pass_time(1.5)
    assert world.get(run).state is State.CANCELLED


@pytest.mark.parametrize("state", [State.QUEUED, State.RUNNING])
async def test_a_cancel_of_what_nobody_carries_needs_no_backend(world: World, state: State) -> None:
    operation_id = (
        await world.submit() if state is State.QUEUED else (await world.running()).request.operation_id
    )
    assert world.get(operation_id).state is state
    assert not world.store.is_interrupted(world.get(operation_id))
    _belongs_to(world, operation_id, "dead")
    assert world.store.is_interrupted(world.get(operation_id))
    assert world.store.cancel(operation_id, "gone anyway").state is State.CANCELLED
    assert world.get(operation_id).message == "gone anyway"
    assert not world.store.is_interrupted(world.get(operation_id))


async def test_of_several_processes_one_takes_over(tmp_path: Path, database_url: str) -> None:
    options: dict[str, Any] = {"clock": (clock := VirtualClock()), "database_url": database_url}
    async with started(tmp_path, **options) as first, started(tmp_path, **options) as second:
        ids = [await first.submit() for _ in range(5)]
        while first.agent.waiting:
            await first.agent.request()
        for operation_id in ids:
            _belongs_to(first, operation_id, "dead")
        await clock.advance(2)
        stories = [first.story(operation_id).count("taken_over") for operation_id in ids]
        assert stories == [1] * 5
        assert first.agent.waiting + second.agent.waiting == 5


async def test_who_comes_second_leaves_what_another_has_taken_over(tmp_path: Path, database_url: str) -> None:
    options: dict[str, Any] = {"clock": VirtualClock(), "database_url": database_url}
    async with started(tmp_path, **options) as first, started(tmp_path, **options) as second:
        operation_id = await first.submit()
        _belongs_to(first, operation_id, "dead")
        seen_by_both = first.get(operation_id)
        taken = [
            world.store.change(
                partial(world.backend._sweep._take_over, seen_by_both), owner=world.backend.owner
            )
            for world in (first, second)
        ]
        assert [operation is not None for operation in taken] == [True, False]
        assert first.get(operation_id).owner == first.backend.instance


async def test_a_process_that_stops_leaves_its_operations_to_the_next(
    tmp_path: Path, database_url: str
) -> None:
    options: dict[str, Any] = {"clock": VirtualClock(), "database_url": database_url}
    async with started(tmp_path, **options) as first:
        operation_id = await first.submit()
    async with started(tmp_path, **options) as second:
        await second.pass_time()
        assert (await second.agent.request()).operation_id == operation_id
        assert second.get(operation_id).owner == second.backend.instance
        assert await second.backend.next_unfinished() == operation_id


async def test_a_process_that_stops_still_hears_what_its_agent_says_at_the_end(tmp_path: Path) -> None:
    async with started(tmp_path) as world:
        run = await world.running()
        event = world.agent.model(run)
        await world.agent.say(event)
        await world.stop()
        with world.store.__class__.open(world.settings) as store:
            assert store.get(run.request.operation_id).state is State.COMPLETED


# --- asking again for what was interrupted


async def test_what_was_interrupted_is_resumed_when_it_is_asked_for_again(world: World) -> None:
    operation_id = await world.submit(fingerprint="same")
    _belongs_to(world, operation_id, "dead")
    submission = await world.backend.submit(wish(fingerprint="same"))
    assert (submission.operation.operation_id, submission.resumed) == (operation_id, True)
    assert submission.operation.owner == world.backend.instance
    assert "resumed" in world.story(operation_id)


async def test_what_was_taken_over_already_is_resumed_too(world: World) -> None:
    operation_id = await world.submit(fingerprint="same")
    _belongs_to(world, operation_id, "dead")
    await world.pass_time(2)
    assert world.get(operation_id).owner == world.backend.instance
    submission = await world.backend.submit(wish(fingerprint="same"))
    assert (submission.operation.operation_id, submission.resumed) == (operation_id, True)
    await world.pass_time()
    assert world.story(operation_id).count("taken_over") == 1


async def test_what_another_process_has_taken_over_is_resumed_where_it_is(world: World) -> None:
    lock = _living(world, "other")
    operation_id = await world.submit(fingerprint="same")
    _belongs_to(world, operation_id, "dead")
    world.store.change(lambda work: work.connection.execute(update(operations).values(owner="other")))
    submission = await world.backend.submit(wish(fingerprint="same"))
    assert submission.resumed
    assert submission.operation.owner == "other"
    lock.release()


async def test_what_is_resumed_while_it_ran_is_retried(world: World) -> None:
    run = await world.running(fingerprint="same")
    _belongs_to(world, run.request.operation_id, "dead")
    assert (await world.backend.submit(wish(fingerprint="same"))).resumed
    await world.pass_time(8)
    assert (world.get(run).state, world.get(run).attempt) == (State.QUEUED, 2)


async def test_attempts_are_counted_anew_for_who_asks_again(world: World) -> None:
    run = await world.running(fingerprint="same", max_attempts=1)
    _belongs_to(world, run.request.operation_id, "dead")
    assert (await world.backend.submit(wish(fingerprint="same", max_attempts=1))).resumed
    await world.agent.fail(run, FailureCause.AGENT_RESTARTED)
    await world.pass_time()
    second = await world.agent.take()
    assert second.request.attempt == 2
    await world.agent.fail(second)
    await world.pass_time()
    assert world.get(run).state is State.FAILED


async def test_what_is_asked_for_twice_by_the_living_is_trained_twice(world: World) -> None:
    lock = _living(world, "other")
    operation_id = await world.submit(fingerprint="same")
    assert not (await world.backend.submit(wish(fingerprint="same"))).resumed
    _belongs_to(world, operation_id, "other")
    assert not (await world.backend.submit(wish(fingerprint="same"))).resumed
    lock.release()


async def test_what_was_interrupted_is_resumed_once(world: World) -> None:
    operation_id = await world.submit(fingerprint="same")
    _belongs_to(world, operation_id, "dead")
    assert (await world.backend.submit(wish(fingerprint="same"))).resumed
    assert not (await world.backend.submit(wish(fingerprint="same"))).resumed


@pytest.mark.parametrize("other", ["another", None])
async def test_what_is_not_the_same_is_not_resumed(world: World, other: str | None) -> None:
    operation_id = await world.submit(fingerprint="same")
    _belongs_to(world, operation_id, "dead")
    assert not (await world.backend.submit(wish(fingerprint=other))).resumed


async def test_what_was_cancelled_or_completed_is_not_resumed(world: World) -> None:
    run = await world.running(fingerprint="same")
    await world.backend.cancel(run.request.operation_id, "enough")
    _belongs_to(world, run.request.operation_id, "dead")
    assert not (await world.backend.submit(wish(fingerprint="same"))).resumed
    await world.pass_time(2)
    assert world.get(run).state is State.CANCELLED
    assert not (await world.backend.submit(wish(fingerprint="same"))).resumed


async def test_what_is_submitted_before_the_start_comes_before_what_is_taken_over(tmp_path: Path) -> None:
    clock = VirtualClock()
    async with started(tmp_path, clock=clock) as first:
        left = await first.submit()
    second = World.make(tmp_path, clock=clock)
    await second.agent.start()
    own = (await second.backend.submit(wish())).operation.operation_id
    await second.backend.start()
    await second.pass_time()
    assert [(await second.agent.request()).operation_id for _ in range(2)] == [own, left]
    await second.stop()
