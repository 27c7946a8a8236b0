"""Several backends carry what goes over the broker together: each hears, and does, as if it were alone."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from pathlib import Path
from typing import TypeVar

import pytest

from ktrdr.backend.following import Following
from ktrdr.backend.instances import BROKER_OWNER
from ktrdr.backend.leases import Leases
from ktrdr.backend.outbox import Outbox
from ktrdr.backend.records import OperationRecord
from ktrdr.backend.servers import read_servers
from ktrdr.backend.states import State
from ktrdr.backend.store import OperationStore
from ktrdr.backend.submitting import Submitter
from ktrdr.bus.memory import MemoryBroker
from ktrdr.bus.topology import BACKEND_EVENTS, DEAD_LETTERS
from ktrdr.clock import SystemClock
from ktrdr.errors import DatabaseUnavailableError
from ktrdr.events import BlobRef, CheckpointSaved
from tests.unit.backend_cases import (
    Run,
    ScriptedAgent,
    World,
    eventually,
    real_backend,
    settings_in,
    wish,
)
from tests.unit.together_cases import ACCEPT_WITHIN_S, LEASE_S, Recorded, Together, together

T = TypeVar("T")


@pytest.fixture
async def both(tmp_path: Path, usual_database_url: str) -> AsyncIterator[Together]:
    async with together(tmp_path, database_url=usual_database_url) as both:
        yield both


def _checkpoint(run: Run, epoch: int) -> CheckpointSaved:
    return CheckpointSaved(
        **run.token, epoch=epoch, checkpoint=BlobRef(uri=f"blob:{'1' * 64}", sha256="1" * 64, size=1)
    )


# --- who publishes


async def test_no_event_is_published_twice_whoever_decided_on_it(both: Together) -> None:
    ids = [both.submit_elsewhere() for _ in range(10)]
    for _ in range(5):
        ids += [await world.submit() for world in (both.first, both.second)]
    runs = [await both.agent.take() for _ in ids]
    for run in runs:
        await both.agent.finish(run)
    await both.pass_time(2)
    assert {both.first.get(operation_id).state for operation_id in ids} == {State.COMPLETED}
    assert len(both.published) == len(set(both.published)) == 2 * len(ids)
    assert both.unsent() == 0
    assert all(line.published for line in both.lines)


async def test_what_one_was_about_to_publish_another_does_when_it_has_died(both: Together) -> None:
    both.lines[0].hangs = asyncio.Event()
    operation_id = await both.first.submit()
    await both.pass_time(5)
    assert both.first.get(operation_id).state is State.PENDING
    await both.first.kill_backend()
    await both.pass_time(2)
    assert both.second.get(operation_id).state is State.QUEUED
    assert both.agent.waiting == 1


async def test_what_one_was_about_to_publish_another_does_when_it_has_stopped(both: Together) -> None:
    both.lines[0].hangs = asyncio.Event()
    operation_id = await both.first.submit()
    await both.first.stop_backend()
    await both.pass_time(1)
    assert both.second.get(operation_id).state is State.QUEUED


async def test_what_one_cannot_publish_another_does(both: Together) -> None:
    await both.lines[0].cut()
    operation_id = await both.first.submit()
    await both.pass_time(1)
    assert both.first.get(operation_id).state is State.QUEUED
    assert len(both.lines[1].published) == 1


async def test_what_nobody_can_publish_is_not_tried_more_often_for_that(both: Together) -> None:
    for line in both.lines:
        await line.cut()
    operation_id = await both.first.submit()
    await both.pass_time(60)
    tries = both.history(operation_id, "publish_failed")
    assert len(tries) == 1
    with both.first.store.reading() as connection:
        counted = connection.exec_driver_sql("SELECT tries FROM outbox").scalar_one()
    assert 2 <= counted <= 2 * (6 + 60 / 5 + 1)
    both.lines[1].mend()
    await both.pass_time(6)
    assert both.first.get(operation_id).state is State.QUEUED


async def test_a_pause_before_a_retry_that_one_has_decided_on_is_kept(both: Together) -> None:
    run = await both.running()
    await both.agent.fail(run)
    await both.pass_time(0.5)
    assert both.agent.waiting == 0
    await both.pass_time(1)
    assert (await both.agent.request()).attempt == 2
    assert both.agent.waiting == 0


async def test_what_a_process_commits_itself_does_not_make_it_read_the_outbox(
    both: Together, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads: list[Outbox] = []
    read = Outbox.unsent

    def counted(self: Outbox, *args: object, **options: object) -> object:
        reads.append(self)
        return read(self, *args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(Outbox, "unsent", counted)
    run = await both.running()
    await both.agent.finish(run)
    await both.pass_time(3)
    assert both.first.get(run).state is State.COMPLETED
    assert reads == []
    both.submit_elsewhere()
    await both.pass_time()
    assert len(reads) >= 1


# --- who is waited for


async def test_an_expiry_is_acted_on_once(both: Together) -> None:
    run = await both.running()
    await both.pass_time(LEASE_S + 2)
    operation_id = run.request.operation_id
    assert (both.first.get(run).attempt, both.first.get(run).state) == (2, State.QUEUED)
    assert len(both.history(operation_id, "lease_expired")) == 1
    assert both.agent.waiting == 1
    # The second attempt too is waited for by both: it may be either that is there to see its end.
    again = await both.agent.take(lease_s=LEASE_S)
    await both.pass_time()
    await both.first.kill_backend()
    await both.pass_time(LEASE_S + 2)
    assert both.second.get(again).attempt == 3


async def test_what_another_has_heard_of_a_run_counts(both: Together) -> None:
    run = await both.running()
    for epoch in range(1, 9):
        await both.agent.say(_checkpoint(run, epoch))  # durable: only one of them hears it
        await both.pass_time(LEASE_S - 2)
    assert (both.first.get(run).state, both.first.get(run).attempt) == (State.RUNNING, 1)
    await both.pass_time(LEASE_S + 2)
    assert both.first.get(run).attempt == 2


async def test_a_run_whose_model_waits_at_another_is_not_given_up(both: Together) -> None:
    in_the_way = both.first.settings.models_dir / "momentum"
    in_the_way.parent.mkdir(parents=True, exist_ok=True)
    in_the_way.write_text("no directory")
    run = await both.running()
    await both.agent.finish(run)
    await both.pass_time(5 * LEASE_S)
    assert (both.first.get(run).state, both.first.get(run).attempt) == (State.RUNNING, 1)
    in_the_way.unlink()
    await both.pass_time(15)
    assert (both.first.get(run).state, both.first.get(run).attempt) == (State.COMPLETED, 1)


async def test_a_cancellation_by_a_person_is_no_sign_of_life(both: Together) -> None:
    run = await both.running()
    await both.pass_time(LEASE_S - 2)
    both.first.store.cancel(run.request.operation_id, "enough")
    await both.pass_time(4)
    assert both.first.get(run).state is State.CANCELLED


async def test_who_cannot_hear_an_agent_gives_up_nothing_of_what_another_hears(both: Together) -> None:
    run = await both.running()
    await both.lines[0].cut()
    for number in range(10):
        await both.pass_time(LEASE_S - 2)
        await both.agent.progress(run, number)
    both.lines[0].mend()
    await both.pass_time(LEASE_S - 2)
    await both.agent.progress(run, 100)
    await both.pass_time(LEASE_S - 2)
    assert (both.first.get(run).state, both.first.get(run).attempt) == (State.RUNNING, 1)


async def test_a_request_that_nobody_accepts_is_dispatched_again_once(both: Together) -> None:
    operation_id = await both.first.submit()
    await both.agent.request()
    await both.pass_time(ACCEPT_WITHIN_S + 2)
    assert both.agent.waiting == 1
    assert len(both.history(operation_id, "not_accepted")) == 1
    await both.agent.request()
    await both.pass_time(ACCEPT_WITHIN_S + 2)
    assert len(both.history(operation_id, "not_accepted")) == 2


async def test_a_request_that_a_dead_backend_has_published_is_waited_for(both: Together) -> None:
    operation_id = await both.first.submit()
    await both.agent.request()
    await both.pass_time(2)
    await both.first.kill_backend()
    await both.pass_time(ACCEPT_WITHIN_S - 4)
    assert both.agent.waiting == 0
    await both.pass_time(4)
    assert both.agent.waiting == 1
    assert len(both.history(operation_id, "not_accepted")) == 1


async def test_who_is_killed_leaves_nothing_undone_whatever_it_was_at(both: Together) -> None:
    run = await both.running()
    queued = await both.first.submit()
    both.lines[0].hangs = asyncio.Event()
    pending = await both.first.submit()
    await both.first.kill_backend()
    await both.agent.finish(run)
    await both.pass_time(3)
    for _ in range(2):
        await both.agent.finish(await both.agent.take())
        await both.pass_time()
    ended = [both.second.get(each) for each in (run.request.operation_id, queued, pending)]
    assert [operation.state for operation in ended] == [State.COMPLETED] * 3
    assert sorted(operation.model or "" for operation in ended) == [
        f"momentum/EURUSD_1h_v{version}" for version in (1, 2, 3)
    ]


async def test_where_so_much_is_followed_that_it_takes_long_it_is_not_looked_at_with_each_commit(
    both: Together,
) -> None:
    clock, leases = both.first.clock, Leases(BROKER_OWNER, both.first.clock.monotonic)

    async def slowly(function: Callable[[], T]) -> T:
        clock._elapsed += 0.1
        return function()

    following = Following(
        both.first.store,
        BROKER_OWNER,
        leases,
        clock=clock,
        accept_deadline_s=ACCEPT_WITHIN_S,
        offload=slowly,
        on_change=lambda operation: None,
        on_mail=lambda: None,
    )
    await following.catch_up(is_due=False)
    operation_id = both.submit_elsewhere()
    await following.catch_up(is_due=False)
    assert leases.revisions() == {}
    clock._elapsed += 2
    await following.catch_up(is_due=False)
    assert list(leases.revisions()) == [operation_id]
    both.first.store.cancel(operation_id, "enough")
    await following.catch_up()
    assert leases.revisions() == {}


async def test_an_acceptance_that_is_read_after_the_model_of_its_claim_is_no_news(
    both: Together,
) -> None:
    await both.first.submit()
    run = both.agent.claim(await both.agent.request())
    await both.agent.finish(run)
    await both.pass_time()
    await both.agent.accept(run)
    await both.pass_time()
    assert both.first.get(run).state is State.COMPLETED
    assert both.agent.stops() == []
    assert both.history(run.request.operation_id, "claim_refused") == []


# --- what each sees


class _Watch:
    """Keeps what a watcher at one of them is shown."""

    def __init__(self, world: World, operation_id: str) -> None:
        self.seen: list[OperationRecord] = []
        self._records = world.backend.watch(operation_id)
        self.task = asyncio.create_task(self._read())

    async def _read(self) -> None:
        async with aclosing(self._records) as records:
            async for record in records:
                self.seen.append(record)


async def test_who_watches_at_either_sees_everything(both: Together) -> None:
    operation_id = (await both.first.backend.submit(wish())).operation.operation_id
    watches = [_Watch(world, operation_id) for world in (both.first, both.second)]
    await both.pass_time()
    run = await both.agent.take()
    await both.pass_time()
    for number in range(1, 5):
        await both.agent.progress(run, number)
        await both.pass_time(0)
        assert {watch.seen[-1].progress.sequence for watch in watches if watch.seen[-1].progress} == {number}
    await both.agent.finish(run)
    await both.pass_time()
    for watch in watches:
        states = list(dict.fromkeys(str(record.state) for record in watch.seen))
        assert states == ["pending", "queued", "running", "completed"]
        assert watch.seen[-1].model == "momentum/EURUSD_1h_v1"
        assert watch.task.done()


async def test_what_is_cancelled_at_one_is_stopped_whoever_hears_of_it(both: Together) -> None:
    for world in (both.first, both.second):
        run = await both.running()
        both.agent.told.clear()
        await world.backend.cancel(run.request.operation_id, "enough")
        await both.pass_time()
        assert [stop.attempt for stop in both.agent.stops()] == [1]
        await both.agent.cancelled(run)
        await both.pass_time()
        assert both.first.get(run).state is State.CANCELLED


async def test_each_is_named_as_long_as_it_lives(both: Together) -> None:
    worlds = (both.first, both.second)
    await both.pass_time(2)
    assert [(each.instance, each.reaches_broker) for each in both.first.store.servers()] == [
        (world.backend.instance, True) for world in worlds
    ]
    await both.lines[1].cut()
    await both.pass_time(2)
    assert [each.reaches_broker for each in both.first.store.servers()] == [True, False]
    await both.first.kill_backend()
    assert [each.instance for each in both.second.store.servers()] == [both.second.backend.instance]
    await both.first.start_another_backend()
    living = [both.second.backend.instance, both.first.backend.instance]
    assert [each.instance for each in both.second.store.servers()] == living
    with both.first.store.reading() as connection:
        assert [each.instance for each in read_servers(connection)] == living  # without looking who lives
    await both.first.stop_backend()
    await both.second.stop_backend()
    assert not both.second.store.is_served()


# --- all at once


@pytest.mark.long
async def test_many_trainings_at_two_backends_in_real_time_end_once_each_and_nothing_is_published_twice(
    tmp_path: Path, database_url: str
) -> None:
    settings = settings_in(tmp_path, database_url=database_url, retry_backoff_s=0.1)
    broker = MemoryBroker(SystemClock())
    lines = [Recorded(broker) for _ in range(2)]
    made = [real_backend(settings, broker, bus=line, owner=BROKER_OWNER) for line in lines]
    agent = ScriptedAgent(broker, SystemClock())
    await agent.start()
    store = made[0][1]

    async def run(attempt: Run) -> None:
        for number in range(5):
            await agent.progress(attempt, number)
            await asyncio.sleep(0)
        await agent.present(attempt)
        if attempt.request.seed % 10 == 0 and attempt.request.attempt == 1:
            await agent.fail(attempt)
        else:
            await agent.finish(attempt)

    async def work() -> None:
        async with asyncio.TaskGroup() as group:
            while True:
                group.create_task(run(await agent.take()))

    async def submit(number: int) -> str:
        if number % 3 == 0:
            submission = await asyncio.to_thread(elsewhere.submit, wish(seed=number))
        else:
            submission = await made[number % 2][0].submit(wish(seed=number))
        return submission.operation.operation_id

    def all_ended() -> bool:
        return not store.unfinished()

    with OperationStore.open(settings) as of_another_process:
        elsewhere = Submitter(settings, of_another_process)
        async with made[0][0], made[1][0]:
            working = asyncio.create_task(work())
            ids = list(await asyncio.gather(*(submit(number) for number in range(60))))
            for number, operation_id in enumerate(ids[:6]):
                await made[number % 2][0].cancel(operation_id, "enough")
            await eventually(all_ended, "ending")
            working.cancel()
            await asyncio.wait((working,))
    operations = store.get_all(ids)
    assert all(operation.state in (State.COMPLETED, State.CANCELLED) for operation in operations)
    completed = {operation.operation_id for operation in operations if operation.state is State.COMPLETED}
    assert len(completed) >= 54
    models = store.models.list_models(limit=100)
    assert sorted(model.version for model in models) == list(range(1, len(completed) + 1))
    assert {model.operation_id for model in models} == completed
    published = [message.message_id for line in lines for message in line.published]
    assert len(published) == len(set(published))
    await agent.stop()
    for _, each in made:
        each.close()


# --- who has lost the database


def _lose_database(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: object, **__: object) -> None:
        raise DatabaseUnavailableError("The database is away.")

    for way in ("read", "look_up", "write"):
        monkeypatch.setattr(world.store._database, way, away)


def _held(both: Together) -> tuple[int, int, int]:
    stats = both.first.broker.queue_stats(BACKEND_EVENTS)
    return stats.ready, stats.unacked, stats.consumers


async def test_what_one_holds_that_has_lost_the_database_another_does(
    both: Together, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = [await both.running() for _ in range(4)]
    with monkeypatch.context() as lost:
        _lose_database(both.first, lost)
        for run in runs:
            await both.agent.finish(run)
        await both.pass_time()
        assert _held(both)[1] > 0
        for _ in range(8):  # an agent lists what is not answered
            await both.agent.present(*runs)
            await both.pass_time(LEASE_S - 2)
        assert [both.second.get(run).state for run in runs] == [State.COMPLETED] * 4
        assert [both.second.get(run).attempt for run in runs] == [1] * 4
        assert _held(both) == (0, 0, 1)
    await both.pass_time(10)
    assert _held(both) == (0, 0, 2)
    again = await both.running()
    await both.agent.finish(again)
    await both.pass_time()
    assert both.first.get(again).state is State.COMPLETED


async def test_however_long_the_database_is_away_nothing_becomes_a_dead_letter(
    both: Together, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ktrdr.backend.settling._HOLD_S", 20.0)
    runs = [await both.running() for _ in range(3)]
    with monkeypatch.context() as lost:
        for world in (both.first, both.second):
            _lose_database(world, lost)
        for run in runs:
            await both.agent.finish(run)
        await both.pass_time(200)  # ten times that, and a queue takes back five times
        assert _held(both) == (3, 0, 0)
    await both.agent.present(*runs)
    await both.pass_time(10)
    assert _held(both) == (0, 0, 2)
    assert both.first.broker.queue_stats(DEAD_LETTERS).depth == 0
    assert [both.first.get(run).state for run in runs] == [State.COMPLETED] * 3
