"""From a submission to the end of its attempts, by what an agent says."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from ktrdr.backend.attempts import RetryPolicy
from ktrdr.backend.states import State
from ktrdr.errors import ModelError, OversizedError
from ktrdr.events import BlobRef, CheckpointSaved, FailureCause, StrategyDocument, TrainingRequested
from tests.unit.backend_cases import World, started, wish


@pytest.fixture
async def world(tmp_path: Path, usual_database_url: str) -> AsyncIterator[World]:
    async with started(tmp_path, database_url=usual_database_url) as world:
        yield world


# --- submitting


async def test_a_submission_is_durable_before_anything_is_said(world: World) -> None:
    submission = await world.backend.submit(wish())
    operation = world.get(submission.operation.operation_id)
    assert (operation.state, operation.attempt, submission.resumed) == (State.PENDING, 1, False)
    assert (operation.strategy, operation.symbol, operation.timeframe) == ("momentum", "EURUSD", "1h")
    assert operation.seed == 7
    assert world.agent.waiting == 0


async def test_the_request_says_what_was_asked_for(world: World) -> None:
    await world.submit(seed=42)
    request = await world.agent.request()
    assert (request.attempt, request.seed, request.lane) == (1, 42, "any")
    assert request.strategy == wish().strategy
    assert request.datasets == wish().datasets
    assert request.accept_within_s == world.settings.accept_deadline_s


async def test_an_operation_is_queued_once_the_broker_has_its_request(world: World) -> None:
    assert world.get(await world.submit()).state is State.QUEUED


async def test_a_name_that_could_lead_out_of_the_models_directory_is_refused(world: World) -> None:
    with pytest.raises(ModelError, match="cannot be part"):
        await world.backend.submit(wish(symbol="../EURUSD"))
    assert world.store.list_operations() == []


async def test_a_request_that_is_too_large_is_refused_before_it_is_recorded(world: World) -> None:
    strategy = StrategyDocument(name="momentum", yaml="x", sha256="0" * 64, overrides={"a": "b"})
    many = strategy.model_copy(update={"overrides": {str(n): n for n in range(400_000)}})
    with pytest.raises(OversizedError):
        await world.backend.submit(wish(strategy=many))
    assert world.store.list_operations() == []


# --- accepting


async def test_an_attempt_that_is_accepted_runs(world: World) -> None:
    run = await world.running()
    operation = world.get(run)
    assert (operation.claim_id, operation.agent_id, operation.device) == (run.claim_id, "agent-1", "cpu")
    assert operation.started_at is not None


async def test_a_second_claim_of_an_attempt_is_told_to_stop_and_the_first_is_not(world: World) -> None:
    run = await world.running()
    other = await world.other_agent()
    second = other.claim(run.request)
    await other.accept(second)
    await world.pass_time()
    assert [(stop.claim_id, stop.attempt) for stop in other.stops()] == [(second.claim_id, 1)]
    assert world.get(run).claim_id == run.claim_id
    assert "claim_refused" in world.story(run)


async def test_what_the_second_claim_says_of_its_end_changes_nothing(world: World) -> None:
    run = await world.running()
    other = await world.other_agent()
    second = other.claim(run.request)
    await other.accept(second)
    await other.cancelled(second)
    await other.fail(second)
    await world.pass_time()
    assert (world.get(run).state, world.get(run).attempt) == (State.RUNNING, 1)


async def test_an_acceptance_that_comes_twice_changes_nothing(world: World) -> None:
    await world.submit()
    run = world.agent.claim(await world.agent.request())
    event_id = await world.agent.accept(run)
    await world.agent.accept(run, event_id=event_id)
    await world.agent.accept(run)
    await world.pass_time()
    assert world.story(run).count("accepted") == 1
    assert world.agent.stops() == []


async def test_who_takes_the_request_of_a_superseded_attempt_is_told_to_stop(world: World) -> None:
    first = await world.running()
    await world.agent.fail(first)
    await world.pass_time(2)
    late = world.agent.claim(first.request)
    await world.agent.accept(late)
    await world.pass_time()
    assert [(stop.attempt, stop.claim_id) for stop in world.agent.stops()] == [(1, late.claim_id)]
    assert world.get(first).attempt == 2


async def test_who_accepts_an_attempt_that_was_never_requested_is_told_to_stop(world: World) -> None:
    run = await world.running()
    ahead = world.agent.claim(run.request.model_copy(update={"attempt": 9}))
    await world.agent.accept(ahead)
    await world.pass_time()
    assert [stop.attempt for stop in world.agent.stops()] == [9]
    assert world.get(run).attempt == 1


async def test_who_accepts_an_operation_that_nobody_knows_is_told_to_stop(world: World) -> None:
    run = await world.running()
    unknown = world.agent.claim(run.request.model_copy(update={"operation_id": "op-of-another-database"}))
    await world.agent.accept(unknown)
    await world.pass_time()
    assert [stop.operation_id for stop in world.agent.stops()] == ["op-of-another-database"]


async def test_who_accepts_an_operation_that_has_ended_is_told_to_stop_each_time(world: World) -> None:
    run = await world.running()
    await world.agent.finish(run)
    await world.pass_time()
    late = world.agent.claim(run.request)
    event_id = await world.agent.accept(late)
    await world.agent.accept(late, event_id=event_id)
    await world.pass_time()
    assert [stop.claim_id for stop in world.agent.stops()] == [late.claim_id] * 2


async def test_a_claim_whose_acceptance_was_lost_is_granted_when_presence_lists_it(world: World) -> None:
    await world.submit()
    run = world.agent.claim(await world.agent.request())
    await world.agent.present(run)
    await world.pass_time()
    assert (world.get(run).state, world.get(run).claim_id) == (State.RUNNING, run.claim_id)
    assert world.agent.stops() == []


# --- failing and retrying


async def test_a_failure_that_may_not_come_again_is_retried_after_a_pause(world: World) -> None:
    first = await world.running()
    await world.agent.fail(first)
    await world.pass_time(0.9)
    assert (world.get(first).state, world.get(first).attempt) == (State.QUEUED, 2)
    assert world.agent.waiting == 0
    await world.pass_time(0.2)
    second = await world.agent.take()
    await world.pass_time()
    assert second.request.attempt == 2
    assert second.request.model_copy(update={"attempt": 1, "requested_at": first.request.requested_at}) == (
        first.request
    )
    assert world.get(first).state is State.RUNNING
    assert world.story(first) == [
        "submitted",
        "dispatched",
        "accepted",
        "attempt_failed",
        "retry",
        "dispatched",
        "accepted",
    ]


@pytest.mark.parametrize("cause", [cause for cause in FailureCause if not cause.retryable])
async def test_a_failure_that_would_come_again_fails_the_operation(world: World, cause: FailureCause) -> None:
    run = await world.running()
    await world.agent.fail(run, cause)
    await world.pass_time()
    operation = world.get(run)
    assert (operation.state, operation.cause, operation.message) == (State.FAILED, cause, "it broke")
    assert operation.finished_at is not None


async def test_the_last_attempt_that_fails_fails_the_operation_with_its_story(world: World) -> None:
    run = await world.running()
    for attempt in (1, 2, 3):
        assert run.request.attempt == attempt
        await world.agent.fail(run)
        await world.pass_time(5)
        if attempt < 3:
            run = await world.agent.take()
    operation = world.get(run)
    assert (operation.state, operation.cause) == (State.FAILED, FailureCause.RUNNER_CRASHED)
    assert operation.message == "it broke (attempt 3 of 3)"
    assert world.story(run).count("attempt_failed") == 3
    assert world.agent.waiting == 0


async def test_a_request_may_allow_fewer_attempts(world: World) -> None:
    run = await world.running(max_attempts=1)
    await world.agent.fail(run)
    await world.pass_time()
    assert world.get(run).state is State.FAILED


async def test_a_failure_that_comes_twice_costs_one_attempt(world: World) -> None:
    run = await world.running()
    event_id = await world.agent.fail(run)
    await world.agent.fail(run, event_id=event_id)
    await world.agent.fail(run)
    await world.pass_time()
    assert world.get(run).attempt == 2


async def test_a_failure_that_overtakes_its_acceptance_counts_and_the_acceptance_is_too_late(
    world: World,
) -> None:
    await world.submit()
    run = world.agent.claim(await world.agent.request())
    await world.agent.fail(run)
    await world.agent.accept(run)
    await world.pass_time()
    assert world.get(run).attempt == 2
    assert [stop.claim_id for stop in world.agent.stops()] == [run.claim_id]


@pytest.mark.parametrize("cause", [FailureCause.AGENT_RESTARTED, FailureCause.AGENT_SHUTDOWN])
async def test_what_ended_with_its_agent_is_retried_at_once(world: World, cause: FailureCause) -> None:
    run = await world.running()
    await world.agent.fail(run, cause)
    await world.pass_time(0.1)
    assert world.agent.waiting == 1


async def test_an_orderly_stop_costs_no_attempt_but_a_crash_does(world: World) -> None:
    run = await world.running(max_attempts=2)
    for _ in range(4):
        await world.agent.fail(run, FailureCause.AGENT_SHUTDOWN)
        await world.pass_time()
        run = await world.agent.take()
        await world.pass_time()
    await world.agent.fail(run)
    await world.pass_time(100)
    run = await world.agent.take()
    await world.agent.fail(run)
    await world.pass_time()
    assert (world.get(run).state, run.request.attempt) == (State.FAILED, 6)


async def test_why_an_attempt_did_not_finish_is_told_until_the_operation_has_ended_otherwise(
    world: World,
) -> None:
    run = await world.running()
    await world.agent.fail(run)
    await world.pass_time(2)
    assert world.get(run).message == "it broke"
    second = await world.agent.take()
    await world.agent.finish(second)
    await world.pass_time()
    assert (world.get(run).state, world.get(run).message) == (State.COMPLETED, None)


async def test_a_run_that_stops_without_being_asked_is_retried(world: World) -> None:
    run = await world.running()
    await world.agent.cancelled(run)
    await world.pass_time()
    assert (world.get(run).state, world.get(run).attempt) == (State.QUEUED, 2)


async def test_a_late_failure_of_an_earlier_attempt_changes_nothing(world: World) -> None:
    first = await world.running()
    await world.agent.fail(first)
    await world.pass_time(2)
    second = await world.agent.take()
    await world.agent.fail(first, FailureCause.STRATEGY_ERROR)
    await world.pass_time()
    assert (world.get(second).state, world.get(second).attempt) == (State.RUNNING, 2)


async def test_nothing_changes_an_operation_that_has_ended(world: World) -> None:
    run = await world.running()
    await world.agent.finish(run)
    await world.pass_time()
    before = world.get(run)
    await world.agent.fail(run)
    await world.agent.cancelled(run)
    await world.agent.progress(run, 99)
    await world.agent.accept(run)
    await world.backend.cancel(before.operation_id, "too late")
    await world.pass_time(60)
    assert world.get(run) == before


async def test_a_retry_goes_on_from_the_newest_checkpoint(world: World) -> None:
    first = await world.running()
    for epoch, sha256 in ((1, "1" * 64), (5, "5" * 64)):
        checkpoint = BlobRef(uri=f"blob:{sha256}", sha256=sha256, size=10)
        await world.agent.say(CheckpointSaved(**first.token, epoch=epoch, checkpoint=checkpoint))
    await world.agent.fail(first)
    await world.pass_time(2)
    request: TrainingRequested = await world.agent.request()
    assert request.resume_from is not None
    assert request.resume_from.sha256 == "5" * 64


def test_the_pause_doubles_and_has_an_end() -> None:
    policy = RetryPolicy(backoff_s=1.0)
    pauses = [policy.pause_s(attempt, FailureCause.RUNNER_CRASHED) for attempt in (1, 2, 3, 4, 19)]
    assert pauses == [1.0, 2.0, 4.0, 8.0, 300.0]
    assert policy.pause_s(3, FailureCause.AGENT_RESTARTED) == 0.0
