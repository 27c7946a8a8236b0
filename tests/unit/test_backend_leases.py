"""Who is silent for too long loses the attempt; who merely was not listened to does not."""

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest

from ktrdr.backend.leases import Leases
from ktrdr.backend.states import State
from ktrdr.backend.work import Work
from ktrdr.events import FailureCause, TrainingRequested
from tests.contract.virtual_clock import VirtualClock
from tests.unit.backend_cases import World, started


@pytest.fixture
async def world(tmp_path: Path, usual_database_url: str) -> AsyncIterator[World]:
    async with started(tmp_path, database_url=usual_database_url) as world:
        yield world


async def test_a_silent_claim_loses_the_attempt_after_its_lease(world: World) -> None:
    run = await world.running()
    await world.pass_time(29)
    assert world.get(run).state is State.RUNNING
    await world.pass_time(3)
    operation = world.get(run)
    assert (operation.state, operation.attempt, operation.claim_id) == (State.QUEUED, 2, None)
    assert "lease_expired" in world.story(run)
    assert operation.message == f"nothing was heard of {world.agent.agent_id} for 30 s"
    assert world.agent.stops() == []  # it may only be cut off, and still win


async def test_the_lease_is_as_long_as_the_claim_said(world: World) -> None:
    await world.submit()
    run = await world.agent.take(lease_s=5)
    await world.pass_time(4)
    assert world.get(run).state is State.RUNNING
    await world.pass_time(3)
    assert world.get(run).attempt == 2


async def test_no_lease_is_longer_than_an_hour(world: World) -> None:
    await world.submit()
    run = await world.agent.take(lease_s=1e9)
    await world.pass_time()
    assert world.get(run).lease_s == 3600


@pytest.mark.parametrize("sign", ["progress", "presence", "acceptance"])
async def test_any_sign_of_life_renews_the_lease(world: World, sign: str) -> None:
    run = await world.running()
    for number in range(5):
        await world.pass_time(20)
        match sign:
            case "progress":
                await world.agent.progress(run, number)
            case "presence":
                await world.agent.present(run)
            case _:
                await world.agent.accept(run)
    await world.pass_time(20)
    assert (world.get(run).state, world.get(run).attempt) == (State.RUNNING, 1)


async def test_signs_of_life_of_another_claim_do_not_renew_it(world: World) -> None:
    run = await world.running()
    other = await world.other_agent()
    stranger = other.claim(run.request)
    for number in range(4):
        await world.pass_time(10)
        await other.progress(stranger, number)
        await other.present(stranger)
    assert world.get(run).attempt == 2


async def test_a_lease_that_expires_on_the_last_attempt_fails_the_operation_and_stops_every_run(
    world: World,
) -> None:
    run = await world.running(max_attempts=1)
    await world.pass_time(32)
    operation = world.get(run)
    assert (operation.state, operation.cause) == (State.FAILED, FailureCause.LEASE_EXPIRED)
    assert [stop.claim_id for stop in world.agent.stops()] == [run.claim_id]


async def test_a_request_that_nobody_accepts_is_dispatched_again_and_costs_no_attempt(world: World) -> None:
    operation_id = await world.submit()
    await world.agent.request()
    await world.pass_time(299)
    assert world.agent.waiting == 0
    await world.pass_time(3)
    assert world.agent.waiting == 1
    assert (await world.agent.request()).attempt == 1
    assert "not_accepted" in world.story(operation_id)
    assert world.get(operation_id).state is State.QUEUED


async def test_a_request_is_never_twice_in_its_lane(tmp_path: Path) -> None:
    world = World.make(tmp_path)
    await world.backend.start()  # nobody takes anything
    await world.submit()
    await world.pass_time(1000)
    assert world.broker.queue_depth("ktrdr.lane.any") == 1
    await world.stop()


async def test_an_accepted_request_is_not_dispatched_again(world: World) -> None:
    run = await world.running()
    for number in range(40):
        await world.pass_time(10)
        await world.agent.progress(run, number)
    assert world.agent.waiting == 0
    assert world.get(run).state is State.RUNNING


async def test_a_backend_that_was_away_for_an_hour_finds_no_lease_expired(tmp_path: Path) -> None:
    clock = VirtualClock()
    async with started(tmp_path, clock=clock) as world:
        run = await world.running()
        before = world.get(run)
    await clock.advance(3600)
    async with started(tmp_path, clock=clock) as world:
        await world.pass_time(4)
        operation = world.get(run)
        assert (operation.state, operation.attempt) == (State.RUNNING, before.attempt)
        await world.agent.present(run)
        await world.pass_time(20)
        assert world.get(run).state is State.RUNNING
        await world.agent.finish(run)
        await world.pass_time()
        assert world.get(run).state is State.COMPLETED


@pytest.mark.parametrize("hours", [-1, 1])
async def test_a_wall_clock_that_jumps_costs_no_lease_and_no_request(
    world: World, monkeypatch: pytest.MonkeyPatch, hours: int
) -> None:
    run = await world.running()
    queued = await world.submit()
    jumped = world.clock.now
    monkeypatch.setattr(world.clock, "now", lambda: jumped() + timedelta(hours=hours))
    await world.pass_time(20)
    await world.agent.present(run)
    await world.pass_time(20)
    assert (world.get(run).state, world.get(run).attempt) == (State.RUNNING, 1)
    assert "not_accepted" not in world.story(queued)
    await world.pass_time(12)
    assert world.get(run).attempt == 2  # by the clock that does not jump


# --- the rule itself


def _leases(world: World, clock: VirtualClock) -> Leases:
    return Leases(world.backend.instance, clock.monotonic)


async def test_an_expiry_waits_while_older_events_are_still_unread_but_not_for_ever(world: World) -> None:
    run = await world.running()
    clock = VirtualClock()
    leases = _leases(world, clock)
    leases.follow(world.get(run))
    await clock.advance(31)
    assert leases.expired(idle_at=29.9) == []
    assert [lease.claim_id for lease in leases.expired(idle_at=30.1)] == [run.claim_id]
    await clock.advance(298)
    assert leases.expired(idle_at=29.9) == []
    await clock.advance(2)
    assert [lease.claim_id for lease in leases.expired(idle_at=29.9)] == [run.claim_id]


async def test_a_renewal_in_the_backlog_counts_before_the_expiry(world: World) -> None:
    run = await world.running()
    clock = VirtualClock()
    leases = _leases(world, clock)
    leases.follow(world.get(run))
    await clock.advance(31)
    assert leases.renew(run.request.operation_id, 1, run.claim_id)
    assert leases.expired(idle_at=31) == []


async def test_only_what_this_instance_carries_is_waited_for(world: World) -> None:
    run = await world.running()
    clock = VirtualClock()
    leases = Leases("somebody-else", clock.monotonic)
    leases.follow(world.get(run))
    await clock.advance(1000)
    assert leases.expired(idle_at=1000) == []


async def test_following_the_same_claim_again_does_not_renew_it(world: World) -> None:
    run = await world.running()
    clock = VirtualClock()
    leases = _leases(world, clock)
    leases.follow(world.get(run))
    await clock.advance(20)
    leases.follow(world.get(run))
    await clock.advance(11)
    assert len(leases.expired(idle_at=31)) == 1


async def test_a_request_that_is_accepted_or_overtaken_is_not_overdue(world: World) -> None:
    run = await world.running()
    clock = VirtualClock()
    leases = _leases(world, clock)
    request: TrainingRequested = run.request
    leases.requested(request, "event-1")
    leases.follow(world.get(run))
    await clock.advance(1000)
    assert leases.overdue() == []


async def test_an_expiry_that_comes_too_late_changes_nothing(world: World) -> None:
    from ktrdr.backend.attempts import RetryPolicy, lease_expired

    run = await world.running()
    await world.agent.fail(run)
    await world.pass_time(2)
    second = await world.agent.take()
    await world.pass_time()

    def expire(work: Work) -> None:
        lease_expired(work, run.request.operation_id, 1, run.claim_id, 30.0, RetryPolicy(1.0))

    world.store.change(expire)
    assert (world.get(second).state, world.get(second).attempt) == (State.RUNNING, 2)
