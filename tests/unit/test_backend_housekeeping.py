"""A backend that runs for long grows neither in memory nor, but for its records, on disk."""

import os
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import func, insert, select

from ktrdr.backend.housekeeping import chores, tidy
from ktrdr.backend.instances import BROKER_OWNER
from ktrdr.backend.publisher import _REMEMBERED
from ktrdr.backend.retention import Retention
from ktrdr.backend.states import State
from ktrdr.backend.tables import (
    access_tokens,
    audit_log,
    inbox,
    instances,
    metadata,
    outbox,
)
from ktrdr.backend.work import Work
from ktrdr.errors import OperationNotFoundError
from ktrdr.events import FailureCause
from ktrdr.settings import Settings
from tests.unit.backend_cases import World, started, wish

OPERATIONS = int(os.environ.get("KTRDR_TEST_OPERATIONS", "120"))
DAY_S = 86_400.0
KEPT = Retention.from_settings(Settings())


@pytest.fixture
async def world(tmp_path: Path, database_url: str) -> AsyncIterator[World]:
    async with started(
        tmp_path, database_url=database_url, backend={"owner": BROKER_OWNER}, retry_backoff_s=0.0
    ) as world:
        yield world


def _count(world: World, table: object) -> int:
    with world.store.reading() as connection:
        return connection.execute(select(func.count()).select_from(table)).scalar_one()  # type: ignore[arg-type]


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_after_many_operations_nothing_of_them_is_left_in_memory(world: World) -> None:
    agent = world.agent
    for number in range(OPERATIONS):
        await world.backend.submit(wish(seed=number))
        await world.pass_time(0.02)
        run = await agent.take()
        await agent.progress(run, 1)
        await world.pass_time(0.02)
        match number % 5:
            case 0:
                await world.backend.cancel(run.request.operation_id, "enough")
                await agent.cancelled(run)
            case 1:
                await agent.fail(run, FailureCause.STRATEGY_ERROR)
            case 2:
                await agent.fail(run, FailureCause.AGENT_RESTARTED)
                await world.pass_time(0.05)
                await agent.finish(await agent.take())
            case 3:
                world.store.cancel(run.request.operation_id, "from elsewhere")
                await world.pass_time(0.05)
                await agent.finish(run)
            case _:
                await agent.finish(run)
        await agent.progress(run, 2)  # too late
        await agent.present()
    await world.pass_time(3)
    assert {op.state for op in world.store.list_operations(limit=10_000)} <= {
        State.COMPLETED,
        State.FAILED,
        State.CANCELLED,
    }

    backend = world.backend
    assert len(backend._leases) == 0
    assert backend._leases.revisions() == {}
    relay, progress, feed = backend._relay, backend._progress, backend._feed
    for held in (relay._schedule, relay._queues, relay._in_hand, feed._known, feed._watchers):
        assert not held
    assert len(relay._settled) <= _REMEMBERED
    assert not progress._newest
    assert not progress._unwritten
    for subscription in backend._listening.subscriptions:
        assert not subscription._in_hand
        assert not subscription._last_of
    assert len(backend._presences._known) == 1


async def test_mail_of_operations_that_ended_long_ago_is_forgotten_and_other_mail_is_not(
    world: World,
) -> None:
    ended = await world.running()
    await world.agent.finish(ended)
    await world.pass_time()
    going_on = await world.running()
    world.clock._elapsed += 2 * DAY_S
    recent = await world.running()
    await world.agent.finish(recent)
    await world.pass_time()
    tidy(world.store, KEPT)
    with world.store.reading() as connection:
        sent = set(connection.execute(select(outbox.c.operation_id)).scalars())
        received = set(connection.execute(select(inbox.c.operation_id)).scalars())
    assert sent == received == {going_on.request.operation_id, recent.request.operation_id}
    assert not any(tidy(world.store, KEPT).values())


async def test_a_result_that_comes_again_after_its_mail_was_forgotten_is_still_answered(world: World) -> None:
    run = await world.running()
    event = await world.agent.finish(run)
    await world.pass_time()
    world.clock._elapsed += 2 * DAY_S
    tidy(world.store, KEPT)
    world.agent.told.clear()
    await world.agent.say(event)
    await world.agent.accept(run)  # heard late: its model was first
    await world.agent.fail(run)
    other = world.agent.claim(run.request)
    await world.agent.accept(other)
    await world.pass_time()
    assert len(world.agent.persisted()) == 1
    assert [stop.claim_id for stop in world.agent.stops()] == [other.claim_id]
    assert world.get(run).state is State.COMPLETED


async def test_instances_that_ended_long_ago_are_forgotten(world: World) -> None:
    long_ago = world.clock.now()
    values = {"host": "h", "pid": 1, "program_version": "0", "started_at": long_ago}
    lock = world.store.instances.register("alive")
    for name in ("dead", "alive"):
        row = {"id": name, **values}
        world.store.change(lambda work, row=row: work.connection.execute(insert(instances).values(**row)))  # type: ignore[misc]
    world.clock._elapsed += 31 * DAY_S
    tidy(world.store, KEPT)
    with world.store.reading() as connection:
        assert set(connection.execute(select(instances.c.id)).scalars()) == {"alive", world.backend.instance}
    lock.release()


async def test_a_backend_tidies_up_by_itself(world: World) -> None:
    run = await world.running()
    await world.agent.finish(run)
    await world.pass_time()
    await world.stop_backend()
    world.clock._elapsed += 2 * DAY_S
    await world.start_another_backend()
    await world.pass_time(62)
    assert _count(world, outbox) == 0
    assert _count(world, inbox) == 0
    assert world.story(run)[-1] == "model_persisted"


async def test_an_operation_that_ended_long_ago_without_a_model_leaves_no_row_in_any_table(
    world: World,
) -> None:
    run = await world.running()
    await world.agent.progress(run, 1, epoch=1, epochs=5, metrics={"val_loss": 1.0})
    await world.pass_time()
    await world.agent.fail(run, FailureCause.STRATEGY_ERROR)
    await world.pass_time()
    world.clock._elapsed += 91 * DAY_S
    assert tidy(world.store, KEPT)["operations"] == 1
    with pytest.raises(OperationNotFoundError):
        world.get(run)
    of_operations = [table for table in metadata.sorted_tables if "operation_id" in table.c]
    assert {table.name: _count(world, table) for table in of_operations} == {
        table.name: 0 for table in of_operations
    }


async def test_what_made_a_model_what_has_not_ended_and_what_is_recent_stay_whole(world: World) -> None:
    cancelled = await world.running()
    made, unfinished = await world.running(seed=1), await world.submit(seed=2)
    await world.agent.finish(made)
    await world.pass_time()
    story = world.story(made)
    world.clock._elapsed += 91 * DAY_S
    await world.agent.present()
    world.store.cancel(cancelled.request.operation_id, "only now")
    await world.agent.cancelled(cancelled)
    await world.pass_time()
    tidy(world.store, KEPT)
    assert world.story(made) == story
    assert world.store.find_request(made.request.operation_id) is not None
    assert not world.get(unfinished).state.terminal
    assert world.get(cancelled).state is State.CANCELLED


async def test_for_ever_means_for_ever(world: World) -> None:
    run = await world.running()
    await world.agent.fail(run, FailureCause.STRATEGY_ERROR)
    await world.pass_time()
    world.clock._elapsed += 20_000 * DAY_S
    tidy(world.store, Retention.from_settings(Settings(keep_operations_days=float("inf"))))
    assert world.get(run).state is State.FAILED


async def test_forgetting_is_done_in_small_transactions_and_each_is_whole(world: World) -> None:
    """Killed after any of them, no operation has lost only a part of itself."""
    runs = [await world.running(seed=seed) for seed in range(3)]
    for run in runs:
        await world.agent.fail(run, FailureCause.STRATEGY_ERROR)
    await world.pass_time()
    world.clock._elapsed += 91 * DAY_S
    chore = replace(next(chores(world.store, KEPT)), at_once=1)
    for left in (2, 1, 0):
        assert world.store.change(chore.step) == 1
        known = [op.operation_id for op in world.store.list_operations()]
        assert len(known) == left
        assert all(world.store.history(operation_id) for operation_id in known)
    assert world.store.change(chore.step) == 0


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_a_transaction_that_fails_in_the_middle_forgets_nothing(world: World) -> None:
    run = await world.running()
    await world.agent.fail(run, FailureCause.STRATEGY_ERROR)
    await world.pass_time()
    world.clock._elapsed += 91 * DAY_S
    chore, story = next(chores(world.store, KEPT)), world.story(run)

    def killed(work: Work) -> None:
        chore.step(work)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        world.store.change(killed)
    assert world.story(run) == story


async def test_tokens_that_have_not_been_good_for_long_are_forgotten(world: World) -> None:
    now, long_ago = world.clock.now(), world.clock.now() - timedelta(days=366)
    ends: dict[str, dict[str, datetime | None]] = {
        "good": {},
        "revoked lately": {"revoked_at": now - timedelta(days=364)},
        "revoked": {"revoked_at": long_ago},
        "expired": {"expires_at": long_ago},
        "expires": {"expires_at": now + timedelta(days=1)},
    }
    for number, (name, end) in enumerate(ends.items()):
        row = {"id": str(number), "name": name, "role": "viewer", "digest": f"{number:064}", **end}
        made = insert(access_tokens).values(created_at=long_ago, **row)
        world.store.change(lambda work, made=made: work.connection.execute(made))  # type: ignore[misc]
    assert tidy(world.store, KEPT)["tokens"] == 2
    with world.store.reading() as connection:
        left = set(connection.execute(select(access_tokens.c.name)).scalars())
    assert left == {"good", "revoked lately", "expires"}


async def test_old_audit_entries_are_forgotten(world: World) -> None:
    values = {"who": "w", "action": "a", "subject": "s", "outcome": "o"}
    for days in (366, 364):
        at = world.clock.now() - timedelta(days=days)
        world.store.change(
            lambda work, at=at: work.connection.execute(insert(audit_log).values(at=at, **values))  # type: ignore[misc]
        )
    assert tidy(world.store, KEPT)["audit entries"] == 1
    assert _count(world, audit_log) == 1
