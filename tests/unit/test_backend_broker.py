"""What goes over a broker outlives every process: nobody takes it over, and a successor goes on with it."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from ktrdr.backend.instances import BROKER_OWNER
from ktrdr.backend.records import OperationRecord
from ktrdr.backend.states import State
from ktrdr.backend.store import OperationStore
from ktrdr.backend.submitting import Submitter
from ktrdr.events import FailureCause
from tests.contract.virtual_clock import VirtualClock
from tests.unit.backend_cases import World, started, wish

AS_BROKER = {"owner": BROKER_OWNER}


@pytest.fixture
async def world(tmp_path: Path, usual_database_url: str) -> AsyncIterator[World]:
    async with started(tmp_path, database_url=usual_database_url, backend=AS_BROKER) as world:
        yield world


def _submit(world: World, **overrides: object) -> OperationRecord:
    """Submit as a process does that has no bus."""
    with OperationStore.open(world.settings, clock=world.clock) as store:
        return Submitter(world.settings, store, clock=world.clock).submit(wish(**overrides)).operation


# --- submitting without a bus


async def test_what_another_process_submits_is_published_within_a_twentieth_of_a_second(world: World) -> None:
    operation = _submit(world)
    assert (operation.state, operation.owner) == (State.PENDING, BROKER_OWNER)
    await world.pass_time(0.05)
    assert world.agent.waiting == 1
    await world.pass_time(0.05)  # until that is recorded, together with what else there is
    assert world.get(operation.operation_id).state is State.QUEUED


async def test_what_another_process_submits_is_waited_for_like_everything_else(world: World) -> None:
    operation = _submit(world)
    await world.pass_time()
    await world.agent.request()
    await world.pass_time(302)
    assert world.agent.waiting == 1
    run = await world.agent.take()
    await world.pass_time(40)
    assert (world.get(run).operation_id, world.get(run).attempt) == (operation.operation_id, 2)


async def test_what_is_submitted_while_nobody_serves_waits_and_is_published_by_who_does(
    tmp_path: Path,
) -> None:
    world = World.make(tmp_path, backend=AS_BROKER)
    await world.agent.start()
    operation = _submit(world)
    await world.pass_time(1000)
    assert not world.store.is_carried(operation)
    assert not world.store.is_interrupted(operation)
    assert "ktrdr serve" in world.store.why_waiting(operation)
    await world.backend.start()
    await world.pass_time()
    assert world.store.is_carried(world.get(operation.operation_id))
    assert world.agent.waiting == 1
    await world.stop()


async def test_what_goes_over_the_broker_is_trained_as_often_as_it_is_asked_for(world: World) -> None:
    first, second = _submit(world, fingerprint="same"), _submit(world, fingerprint="same")
    assert first.operation_id != second.operation_id


# --- who carries it


async def test_other_processes_leave_it_alone_whether_or_not_anybody_serves(tmp_path: Path) -> None:
    clock = VirtualClock()
    async with started(tmp_path, clock=clock, backend=AS_BROKER) as world:
        run = await world.running()
        queued = await world.submit()
    async with started(tmp_path, clock=clock) as local:
        await local.pass_time(60)
        for operation_id in (run.request.operation_id, queued):
            assert local.get(operation_id).owner == BROKER_OWNER
            assert "taken_over" not in local.story(operation_id)
        assert local.agent.waiting == 0
        assert local.get(run).state is State.RUNNING


async def test_who_serves_takes_over_nothing_of_other_processes(tmp_path: Path) -> None:
    clock = VirtualClock()
    async with started(tmp_path, clock=clock) as local:
        operation_id = await local.submit()
    async with started(tmp_path, clock=clock, backend=AS_BROKER) as world:
        await world.pass_time(10)
        assert world.agent.waiting == 0
        assert world.store.is_interrupted(world.get(operation_id))


# --- its successor


@pytest.mark.parametrize("end", ["stopped", "killed"])
async def test_a_successor_waits_for_every_claim_anew_and_for_its_whole_lease(world: World, end: str) -> None:
    run = await world.running()
    await world.pass_time(29)
    await (world.stop_backend() if end == "stopped" else world.kill_backend())
    await world.pass_time(3600)
    assert world.get(run).owner == BROKER_OWNER
    await world.start_another_backend()
    await world.pass_time(29)
    assert (world.get(run).state, world.get(run).attempt) == (State.RUNNING, 1)
    await world.pass_time(3)
    assert (world.get(run).state, world.get(run).attempt) == (State.QUEUED, 2)


async def test_a_successor_hears_what_was_said_while_nobody_listened(world: World) -> None:
    run = await world.running()
    queued = await world.submit()
    await world.kill_backend()
    await world.agent.finish(run)
    late = await world.agent.take()
    await world.pass_time(3600)
    await world.start_another_backend()
    await world.pass_time()
    assert world.get(run).state is State.COMPLETED
    assert len(world.agent.persisted()) == 1
    assert (world.get(queued).state, world.get(queued).claim_id) == (State.RUNNING, late.claim_id)


async def test_a_successor_waits_for_who_accepts_what_was_published_before(world: World) -> None:
    operation_id = await world.submit()
    await world.agent.request()
    await world.kill_backend()
    await world.start_another_backend()
    await world.pass_time(299)
    assert world.agent.waiting == 0
    await world.pass_time(3)
    assert world.agent.waiting == 1
    assert "not_accepted" in world.story(operation_id)


async def test_a_successor_publishes_what_was_not_and_nothing_twice(world: World) -> None:
    published = await world.submit()
    await world.kill_backend()
    unpublished = _submit(world).operation_id
    await world.start_another_backend()
    await world.pass_time(5)
    ids = [(await world.agent.request()).operation_id for _ in range(world.agent.waiting)]
    assert ids == [published, unpublished]


async def test_a_pause_before_a_retry_survives_the_process(world: World) -> None:
    run = await world.running()
    await world.agent.fail(run)
    await world.pass_time(0.2)
    await world.kill_backend()
    await world.start_another_backend()
    await world.pass_time(2)
    assert (await world.agent.request()).attempt == 2


async def test_what_a_killed_process_had_staged_is_removed_by_its_successor(world: World) -> None:
    await world.kill_backend()
    staged = world.settings.models_dir / ".staging" / f"{world.backend.instance}~0123"
    staged.mkdir(parents=True)
    await world.start_another_backend()
    assert not staged.exists()


async def test_what_is_being_staged_by_who_serves_is_left_alone_by_others(world: World) -> None:
    staged = world.settings.models_dir / ".staging" / f"{world.backend.instance}~0123"
    staged.mkdir(parents=True)
    shared = {"clock": world.clock, "database_url": world.settings.database_url}
    async with started(world.directory, **shared):
        assert staged.exists()


# --- cancelling while nobody serves


async def test_what_waits_is_cancelled_at_once_and_who_takes_it_is_told_to_stop_later(world: World) -> None:
    operation_id = await world.submit()
    await world.stop_backend()
    assert world.store.cancel(operation_id, "enough").state is State.CANCELLED
    late = await world.agent.take()
    await world.start_another_backend()
    await world.pass_time()
    assert late.claim_id in [stop.claim_id for stop in world.agent.stops()]


async def test_what_runs_is_cancelled_when_its_run_can_be_told(world: World) -> None:
    run = await world.running()
    await world.stop_backend()
    assert world.store.cancel(run.request.operation_id, "enough").state is State.CANCELLING
    await world.start_another_backend()
    await world.pass_time()
    assert [stop.attempt for stop in world.agent.stops()] == [1]
    await world.agent.cancelled(run)
    await world.pass_time()
    assert world.get(run).state is State.CANCELLED


async def test_a_model_that_came_before_the_cancel_was_known_is_discarded(world: World) -> None:
    run = await world.running()
    await world.stop_backend()
    await world.agent.finish(run)
    world.store.cancel(run.request.operation_id, "enough")
    await world.start_another_backend()
    await world.pass_time()
    assert world.get(run).state is State.CANCELLED
    assert [event.claim_id for event in world.agent.discarded()] == [run.claim_id]
    assert world.store.models.list_models() == []


async def test_who_missed_a_cancel_by_another_process_is_told_with_each_presence(world: World) -> None:
    run = await world.running()
    world.store.cancel(run.request.operation_id, "enough")
    await world.pass_time(2)
    world.agent.told.clear()
    for _ in range(3):
        await world.agent.present(run)
        await world.pass_time()
    assert [stop.claim_id for stop in world.agent.stops()] == [run.claim_id] * 3


# --- an agent that restarts


async def test_an_agent_that_restarts_says_at_once_what_it_held_and_it_is_retried_elsewhere(
    world: World,
) -> None:
    run = await world.running()
    await world.agent.fail(run, FailureCause.AGENT_RESTARTED)
    await world.pass_time(0.1)
    assert (await world.agent.request()).attempt == 2
