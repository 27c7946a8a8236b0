"""Who watches sees each change at once, never an older one, and the newest if it is slow."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path

import pytest

from ktrdr.backend.progress import ProgressRecorder
from ktrdr.backend.records import OperationRecord
from ktrdr.backend.states import State
from ktrdr.backend.store import OperationStore
from ktrdr.backend.watching import Feed
from ktrdr.bus.memory import MemoryBroker
from ktrdr.clock import SystemClock
from ktrdr.errors import OperationNotFoundError, StoreError
from ktrdr.events import TrainingProgress
from tests.unit.backend_cases import (
    PATIENCE_S,
    ScriptedAgent,
    World,
    eventually,
    inline,
    real_backend,
    settings_in,
    started,
    wish,
)


@pytest.fixture
async def world(tmp_path: Path, usual_database_url: str) -> AsyncIterator[World]:
    async with started(tmp_path, database_url=usual_database_url) as world:
        yield world


class Watch:
    """Reads a feed as fast as it can and keeps what it saw."""

    def __init__(self, world: World, operation_id: str, feed: Feed | None = None) -> None:
        self.seen: list[OperationRecord] = []
        self._records = (feed or world.backend).watch(operation_id)
        self.task = asyncio.create_task(self._read())

    async def _read(self) -> None:
        async with aclosing(self._records) as records:
            async for record in records:
                self.seen.append(record)

    @property
    def states(self) -> list[str]:
        return list(dict.fromkeys(str(record.state) for record in self.seen))

    @property
    def positions(self) -> list[tuple[int, int]]:
        return [(r.progress.attempt, r.progress.sequence) for r in self.seen if r.progress is not None]


async def test_a_watch_shows_every_state_and_ends_with_the_operation(world: World) -> None:
    operation_id = (await world.backend.submit(wish())).operation.operation_id
    watch = Watch(world, operation_id)
    await world.pass_time()
    run = await world.agent.take()
    await world.pass_time()
    await world.agent.progress(run, 1)
    await world.pass_time()
    await world.agent.finish(run)
    await world.pass_time()
    assert watch.states == ["pending", "queued", "running", "completed"]
    assert watch.positions[-1] == (1, 1)
    assert watch.seen[-1].model == "momentum/EURUSD_1h_v1"
    assert watch.task.done()


async def test_progress_is_shown_before_it_is_written(world: World) -> None:
    run = await world.running()
    watch = Watch(world, run.request.operation_id)
    await world.pass_time()
    for number in range(1, 50):
        await world.agent.progress(run, number)
        await world.pass_time(0)
    assert watch.positions[-1] == (1, 49)
    assert len(watch.positions) > 20
    await world.pass_time(0.2)
    written = world.get(run).progress
    assert written is not None
    assert written.sequence == 49
    watch.task.cancel()


async def test_progress_never_goes_back(world: World) -> None:
    run = await world.running()
    watch = Watch(world, run.request.operation_id)
    await world.pass_time()
    for number in (1, 5, 3, 5, 2, 7, 6):
        await world.agent.progress(run, number)
        await world.pass_time(0.15)
    assert watch.positions == sorted(watch.positions)
    assert watch.positions[-1] == (1, 7)
    progress = world.get(run).progress
    assert progress is not None
    assert progress.sequence == 7
    watch.task.cancel()


async def test_progress_of_a_superseded_attempt_is_not_shown(world: World) -> None:
    first = await world.running()
    await world.agent.progress(first, 500)
    await world.pass_time()
    await world.agent.fail(first)
    await world.pass_time(2)
    second = await world.agent.take()
    await world.pass_time()
    await world.agent.progress(second, 1)
    await world.agent.progress(first, 501)
    await world.pass_time()
    progress = world.get(first).progress
    assert progress is not None
    assert (progress.attempt, progress.sequence) == (2, 1)


async def test_each_progress_is_handed_on_once_and_in_order(world: World) -> None:
    run = await world.running()
    handed: list[int] = []
    recorder = ProgressRecorder(
        world.store,
        clock=world.clock,
        offload=inline,
        on_progress=lambda progress: handed.append(progress.sequence),
    )
    for number in (1, 5, 3, 5, 7, 6):
        values = {"stage": "Training", "stage_number": 6, "stages": 8, "fraction": 0.5}
        recorder.record(TrainingProgress(**run.token, sequence=number, **values))
    assert handed == [1, 5, 7]
    await recorder.flush()
    written = world.get(run).progress
    assert written is not None
    assert written.sequence == 7


async def test_a_reading_that_comes_late_sets_neither_state_nor_progress_back(world: World) -> None:
    operation_id = await world.submit()
    feed = Feed(world.store, world.clock, offload=inline)
    watch = Watch(world, operation_id, feed)
    await world.pass_time()
    queued = world.get(operation_id)
    run = await world.agent.take()
    await world.pass_time()
    await world.agent.progress(run, 1)
    await world.pass_time()
    running = world.get(run)
    assert running.progress is not None
    feed.changed(running)
    feed.changed(queued)
    await world.pass_time()
    assert watch.states == ["queued", "running"]
    feed.changed(replace(running, revision=running.revision + 1, progress=None))
    await world.pass_time()
    assert watch.states == ["queued", "running"]
    assert watch.positions == [(1, 1)] * len(watch.positions)
    assert watch.seen[-1].progress == running.progress
    watch.task.cancel()


async def test_a_slow_watcher_gets_the_newest_and_misses_what_was_between(world: World) -> None:
    run = await world.running()
    async with aclosing(world.backend.watch(run.request.operation_id)) as records:
        await anext(records)
        for number in range(1, 200):
            await world.agent.progress(run, number)
            await world.pass_time(0.01)
        record = await anext(records)
        assert record.progress is not None
        assert record.progress.sequence == 199


async def test_a_watch_of_what_has_ended_shows_its_end(world: World) -> None:
    run = await world.running()
    await world.agent.finish(run)
    await world.pass_time()
    assert (await world.backend.wait(run.request.operation_id)).state is State.COMPLETED


async def test_a_watch_of_nothing_is_an_error(world: World) -> None:
    with pytest.raises(OperationNotFoundError):
        await world.backend.wait("op-nobody-knows")


async def test_several_watchers_of_one_operation_see_the_same_end(world: World) -> None:
    run = await world.running()
    waits = [asyncio.create_task(world.backend.wait(run.request.operation_id)) for _ in range(3)]
    await world.pass_time()
    await world.agent.finish(run)
    await world.pass_time()
    assert [wait.result().state for wait in waits] == [State.COMPLETED] * 3


async def test_a_watch_ends_with_an_error_when_the_backend_stops(world: World) -> None:
    run = await world.running()
    waiting = asyncio.create_task(world.backend.wait(run.request.operation_id))
    await world.pass_time()
    stopping = asyncio.create_task(world.backend.stop())
    await world.pass_time(3)
    await stopping
    with pytest.raises(StoreError, match="stopped"):
        await waiting


async def test_what_another_process_runs_can_be_watched_through_the_database(world: World) -> None:
    run = await world.running()
    with OperationStore.open(world.settings, clock=world.clock) as store:
        feed = Feed(store, world.clock, offload=inline)
        async with feed:
            watch = Watch(world, run.request.operation_id, feed)
            await world.pass_time()
            await world.agent.progress(run, 1)
            await world.pass_time(0.2)
            assert watch.positions[-1] == (1, 1)
            await world.agent.finish(run)
            await world.pass_time(0.2)
            assert watch.states == ["running", "completed"]
            assert watch.task.done()


async def test_the_progress_of_a_whole_training_costs_few_writes(world: World) -> None:
    run = await world.running()
    watch = world.store.watch_commits()
    commits = 0
    watch.changed()
    for number in range(1, 500):
        await world.agent.progress(run, number)
        await world.pass_time(0.01)
        commits += watch.changed()
    watch.close()
    assert commits <= 51  # in five seconds


# --- in real time, with real threads


async def test_watchers_here_and_in_another_process_see_each_step_before_the_next_is_made(
    tmp_path: Path,
) -> None:
    settings = settings_in(tmp_path)
    broker = MemoryBroker(SystemClock())
    backend, store = real_backend(settings, broker)
    agent = ScriptedAgent(broker, SystemClock())
    other = OperationStore.open(settings)
    await agent.start()
    async with backend, Feed(other) as feed:
        operation_id = (await backend.submit(wish())).operation.operation_id
        seen: dict[str, list[int]] = {"here": [], "elsewhere": []}
        running: set[str] = set()

        async def watch(where: str, source: object) -> None:
            async for record in source.watch(operation_id):  # type: ignore[attr-defined]  # both have it
                if record.state is State.RUNNING:
                    running.add(where)
                if record.progress is not None:
                    seen[where].append(record.progress.sequence)

        watchers = [
            asyncio.create_task(watch("here", backend)),
            asyncio.create_task(watch("elsewhere", feed)),
        ]
        run = await agent.take()
        # By then it is known here who holds it, of whom alone progress is taken.
        await eventually(lambda: "here" in running, "the grant")
        for number in range(1, 11):
            await agent.progress(run, number)
            await eventually(
                lambda number=number: all(number in numbers for numbers in seen.values()),  # type: ignore[misc]  # a default
                f"seeing step {number}",
            )
        await agent.finish(run)
        await asyncio.wait_for(asyncio.gather(*watchers), PATIENCE_S)
    await agent.stop()
    store.close()
    other.close()
    assert all(numbers == sorted(numbers) for numbers in seen.values())


async def test_a_cancel_by_another_process_takes_effect_though_nothing_else_happens(tmp_path: Path) -> None:
    settings = settings_in(tmp_path)
    broker = MemoryBroker(SystemClock())
    backend, store = real_backend(settings, broker)
    agent = ScriptedAgent(broker, SystemClock())
    await agent.start()
    with OperationStore.open(settings) as other:
        async with backend:
            operation_id = (await backend.submit(wish())).operation.operation_id
            await agent.take()
            await eventually(lambda: store.get(operation_id).state is State.RUNNING, "the grant")
            await asyncio.to_thread(other.cancel, operation_id, "from elsewhere")
            await eventually(agent.stops, "the stop")
    await agent.stop()
    store.close()
