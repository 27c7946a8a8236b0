"""What was to run on a host runs beside the backend, once no host can."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from ktrdr.backend.instances import BROKER_OWNER
from ktrdr.backend.states import State
from ktrdr.events import FailureCause
from ktrdr.training.execution_mode_selector import Mode, Place
from tests.unit.refuge_cases import Both, another_for_hosts, both_backends


@pytest.fixture
async def both(tmp_path: Path) -> AsyncIterator[Both]:
    async with both_backends(tmp_path) as both:
        yield both


# --- nobody takes it


async def test_what_no_agent_accepts_in_time_runs_here_and_its_history_says_so_once(both: Both) -> None:
    operation_id = await both.submit(lane="gpu")
    await both.world.pass_time(12)
    run = await both.finish_here()
    ended = both.get(operation_id)
    assert (ended.state, ended.place, ended.agent_id) == (State.COMPLETED, Place.LOCAL, "embedded-1")
    assert (ended.mode, run.request.attempt) == (Mode.HOST, 2)
    assert "no agent serves lane gpu" in str(ended.place_reason)
    (entry,) = both.fell_back(operation_id)
    assert "nobody accepted attempt 1 within 10 s: no agent serves lane gpu" in entry.message


async def test_a_host_that_takes_the_old_request_afterwards_is_told_to_stop(both: Both) -> None:
    operation_id = await both.submit()
    late = await both.world.agent.request()
    await both.world.pass_time(12)
    assert both.get(operation_id).place is Place.LOCAL
    run = both.world.agent.claim(late)
    await both.world.agent.accept(run)
    await both.world.pass_time()
    (stop,) = both.world.agent.stops()
    assert (stop.claim_id, stop.reason) == (run.claim_id, "attempt 2 has superseded it")
    await both.finish_here()
    assert both.get(operation_id).agent_id == "embedded-1"


@pytest.mark.parametrize("fields", [{"require_gpu": True}, {"decision": None}])
async def test_what_requires_a_gpu_or_was_sent_to_a_lane_by_name_waits_for_a_host(
    both: Both, fields: dict[str, Any]
) -> None:
    operation_id = await both.submit(**fields)
    await both.world.pass_time(12)
    assert both.fell_back(operation_id) == []
    assert both.get(operation_id).owner == BROKER_OWNER
    assert both.beside.waiting == 0


async def test_what_is_cancelled_after_it_fell_back_is_cancelled(both: Both) -> None:
    operation_id = await both.submit()
    await both.world.pass_time(12)
    run = await both.beside.take()
    await both.world.pass_time()
    await both.world.backend.cancel(operation_id, "enough")
    await both.world.pass_time()
    assert [stop.operation_id for stop in both.beside.stops()] == [operation_id]
    await both.beside.cancelled(run)
    await both.world.pass_time()
    assert both.get(operation_id).state is State.CANCELLED


# --- the host is lost


async def test_what_ran_on_a_host_that_is_lost_runs_here_if_no_other_is_there(both: Both) -> None:
    run = await both.running()
    await both.world.pass_time(9)
    operation_id = run.request.operation_id
    (entry,) = both.fell_back(operation_id)
    assert "nothing was heard of" in entry.message
    await both.finish_here()
    assert (both.get(operation_id).state, both.get(operation_id).attempt) == (State.COMPLETED, 2)


async def test_what_ran_on_a_host_that_is_lost_goes_to_another_if_there_is_one(both: Both) -> None:
    other = await both.world.other_agent()
    run = await both.running()
    for _ in range(9):
        await other.present()
        await both.world.pass_time(1)
    operation = both.get(run.request.operation_id)
    assert (operation.attempt, operation.place, operation.owner) == (2, Place.HOST, BROKER_OWNER)
    assert both.fell_back(operation.operation_id) == []


async def test_a_host_that_is_back_before_the_run_here_has_begun_goes_on_with_its_own(both: Both) -> None:
    run = await both.running()
    await both.world.pass_time(9)
    unwanted = await both.beside.request()
    await both.world.agent.present(run)
    await both.world.pass_time()
    operation = both.get(run.request.operation_id)
    assert (operation.state, operation.attempt, operation.owner) == (State.RUNNING, 1, BROKER_OWNER)
    assert operation.place is Place.HOST
    await both.beside.accept(both.beside.claim(unwanted))
    await both.world.pass_time()
    assert [stop.reason for stop in both.beside.stops()] == ["attempt 2 is not asked for"]
    await both.world.agent.finish(run)
    await both.world.pass_time()
    assert both.get(operation.operation_id).state is State.COMPLETED


async def test_a_host_that_is_back_later_may_be_first_and_the_run_here_is_stopped(both: Both) -> None:
    run = await both.running()
    await both.world.pass_time(9)
    here = await both.beside.take()
    await both.world.pass_time()
    await both.world.agent.present(run)
    await both.world.agent.finish(run)
    await both.world.pass_time()
    ended = both.get(run.request.operation_id)
    assert (ended.state, ended.agent_id, ended.place) == (State.COMPLETED, "agent-1", Place.HOST)
    assert [stop.claim_id for stop in both.beside.stops()] == [here.claim_id]
    assert len(both.world.agent.persisted()) == 1


# --- attempts


async def test_attempts_that_the_infrastructure_has_used_up_are_followed_by_one_here(both: Both) -> None:
    operation_id = await both.submit()
    for _ in range(3):
        run = await both.world.agent.take()
        await both.world.agent.present(run)
        await both.world.pass_time(2)
        await both.world.agent.fail(run, FailureCause.BLOB_UNAVAILABLE)
        await both.world.pass_time(5)
    run = await both.finish_here()
    ended = both.get(operation_id)
    assert (ended.state, ended.attempt, ended.max_attempts) == (State.COMPLETED, 4, 6)
    assert len(both.fell_back(operation_id)) == 1


@pytest.mark.parametrize("cause", [FailureCause.STRATEGY_ERROR, FailureCause.TRAINING_DIVERGED])
async def test_an_error_of_the_strategy_fails_without_another_attempt(
    both: Both, cause: FailureCause
) -> None:
    run = await both.running()
    await both.world.agent.fail(run, cause)
    await both.world.pass_time(10)
    assert both.get(run.request.operation_id).state is State.FAILED
    assert both.fell_back(run.request.operation_id) == []


@pytest.mark.parametrize("cause", [FailureCause.RUNNER_CRASHED, FailureCause.OUT_OF_MEMORY])
async def test_what_brings_its_runners_down_is_not_let_loose_on_the_backend(
    both: Both, cause: FailureCause
) -> None:
    operation_id = await both.submit()
    for _ in range(3):
        run = await both.world.agent.take()
        await both.world.agent.present(run)
        await both.world.pass_time(2)
        await both.world.agent.fail(run, cause)
        await both.world.pass_time(10)
    assert both.get(operation_id).state is State.FAILED
    assert both.fell_back(operation_id) == []


async def test_what_fails_here_too_has_failed(both: Both) -> None:
    operation_id = await both.submit()
    await both.world.pass_time(12)
    for _ in range(3):
        run = await both.beside.take()
        await both.world.pass_time(2)
        await both.beside.fail(run, FailureCause.DISK_FULL)
        await both.world.pass_time(10)
    assert (both.get(operation_id).state, both.get(operation_id).cause) == (
        State.FAILED,
        FailureCause.DISK_FULL,
    )
    assert len(both.fell_back(operation_id)) == 1


# --- the broker is away


async def test_what_waits_for_a_broker_that_stays_away_runs_here(both: Both) -> None:
    published = await both.submit()
    await both.line.cut()
    unpublished = await both.submit()
    await both.world.pass_time(8)
    assert {both.get(each).place for each in (published, unpublished)} == {Place.HOST}
    await both.world.pass_time(4)
    for _ in range(2):
        await both.finish_here()
    for operation_id in (published, unpublished):
        assert both.get(operation_id).state is State.COMPLETED
        (entry,) = both.fell_back(operation_id)
        assert "the broker has been away for more than 10 s" in entry.message


async def test_what_waits_for_a_broker_that_takes_no_messages_runs_here(both: Both) -> None:
    both.line.blocked = True
    operation_id = await both.submit()
    await both.world.pass_time(30)
    await both.finish_here()
    assert both.get(operation_id).state is State.COMPLETED
    (entry,) = both.fell_back(operation_id)
    assert "the broker has been away for more than 10 s" in entry.message


async def test_what_runs_on_a_host_goes_on_there_while_the_broker_is_away(both: Both) -> None:
    run = await both.running()
    await both.line.cut()
    await both.world.pass_time(15)
    assert both.get(run.request.operation_id).state is State.RUNNING
    both.line.mend()
    await both.world.agent.finish(run)
    await both.world.pass_time(10)
    ended = both.get(run.request.operation_id)
    assert (ended.state, ended.agent_id, ended.place) == (State.COMPLETED, "agent-1", Place.HOST)


async def test_only_the_absence_that_lasts_counts(both: Both) -> None:
    await both.line.cut()
    await both.world.pass_time(8)
    both.line.mend()
    await both.world.pass_time(4)
    await both.line.cut()
    operation_id = await both.submit()
    await both.world.pass_time(8)
    assert both.fell_back(operation_id) == []
    await both.world.pass_time(4)
    assert len(both.fell_back(operation_id)) == 1


async def test_what_waits_goes_on_waiting_while_any_backend_reaches_the_broker(both: Both) -> None:
    operation_id = await both.submit(max_attempts=1)
    async with another_for_hosts(both) as line:
        await both.world.pass_time(2)
        await both.line.cut()
        await both.world.pass_time(30)
        assert both.get(operation_id).owner == BROKER_OWNER
        assert both.fell_back(operation_id) == []
        await line.cut()
        await both.world.pass_time(3)
        assert len(both.fell_back(operation_id)) == 1
        await both.finish_here()
        assert both.get(operation_id).state is State.COMPLETED
