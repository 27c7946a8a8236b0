"""While a training runs, every epoch so far can be read, as one clean line whatever was lost on the way."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import event as sqlalchemy_event

from ktrdr.backend.curves import MOST_EPOCHS, read_curve
from ktrdr.backend.housekeeping import tidy
from ktrdr.backend.progress import ProgressRecorder
from ktrdr.backend.retention import Retention
from ktrdr.backend.states import State
from ktrdr.events import FailureCause, TrainingProgress
from ktrdr.events.training import EpochMetrics
from ktrdr.settings import Settings
from tests.unit.api_cases import Api
from tests.unit.backend_cases import Run, World, eventually, inline, started


@pytest.fixture
async def world(tmp_path: Path, usual_database_url: str) -> AsyncIterator[World]:
    async with started(tmp_path, database_url=usual_database_url, retry_backoff_s=0.0) as world:
        yield world


def epochs(last: int, *, earlier: Any = (), loss: float = 1.0, planned: int = 100) -> dict[str, Any]:
    """Progress that tells of an epoch, and of others before it."""
    return {
        "epoch": last,
        "epochs": planned,
        "metrics": {"val_loss": loss / last} if last else {},
        "earlier": tuple(EpochMetrics(epoch=epoch, metrics={"val_loss": loss / epoch}) for epoch in earlier),
    }


def told_by(run: Run, sequence: int, **told: Any) -> TrainingProgress:
    where = {"stage": "Training", "stage_number": 6, "stages": 8, "fraction": 0.1}
    return TrainingProgress(**run.token, sequence=sequence, **where, **told)


def curve(world: World, operation_id: str) -> list[tuple[int, float]]:
    return [(point.epoch, point.metrics["val_loss"]) for point in read_curve(world.store, operation_id)]


async def test_every_epoch_is_there_also_those_that_no_progress_was_the_newest_of(world: World) -> None:
    run = await world.running()
    await world.agent.progress(run, 1, **epochs(2, earlier=(1,)))
    await world.agent.progress(run, 2, **epochs(3))
    await world.pass_time()
    await world.agent.progress(run, 3, **epochs(7, earlier=range(3, 7)))
    await world.pass_time()
    assert curve(world, run.request.operation_id) == [(epoch, 1 / epoch) for epoch in range(1, 8)]
    # What everybody who watches reads again and again does not grow with it.
    progress = world.get(run).progress
    assert progress is not None
    assert (progress.epoch, progress.earlier) == (7, ())


async def test_a_new_attempt_replaces_what_was_lost(world: World) -> None:
    first = await world.running()
    await world.agent.progress(first, 1, **epochs(5, earlier=range(1, 5)))
    await world.pass_time()
    await world.agent.fail(first, FailureCause.RUNNER_CRASHED)
    await world.pass_time()
    second = await world.agent.take()
    await world.pass_time()
    await world.agent.progress(second, 1)  # it does not train yet
    await world.pass_time()
    operation_id = first.request.operation_id
    assert len(curve(world, operation_id)) == 5
    await world.agent.progress(second, 2, **epochs(0))
    await world.pass_time()
    assert curve(world, operation_id) == []
    await world.agent.progress(second, 3, **epochs(2, earlier=(1,), loss=3.0))
    await world.pass_time()
    assert curve(world, operation_id) == [(1, 3.0), (2, 1.5)]


async def test_an_attempt_that_goes_on_from_a_checkpoint_continues_the_line(world: World) -> None:
    first = await world.running()
    await world.agent.progress(first, 1, **epochs(5, earlier=range(1, 5)))
    await world.pass_time()
    await world.agent.fail(first, FailureCause.RUNNER_CRASHED)
    await world.pass_time()
    second = await world.agent.take()
    await world.pass_time()
    await world.agent.progress(second, 1, **epochs(3, loss=3.0))
    await world.pass_time()
    assert curve(world, first.request.operation_id) == [(1, 1.0), (2, 0.5), (3, 1.0)]


async def test_who_holds_no_grant_adds_nothing(world: World) -> None:
    run = await world.running()
    stranger = world.agent.claim(run.request)
    await world.agent.progress(stranger, 1, **epochs(3, earlier=(1, 2)))
    await world.pass_time()
    assert curve(world, run.request.operation_id) == []


async def test_no_agent_can_fill_the_database_with_epochs(world: World) -> None:
    run = await world.running()
    await world.agent.progress(run, 1, **epochs(MOST_EPOCHS + 1, earlier=(1, MOST_EPOCHS)))
    await world.pass_time()
    assert [epoch for epoch, _ in curve(world, run.request.operation_id)] == [1, MOST_EPOCHS]


async def test_a_backend_that_is_started_again_goes_on_with_the_line(world: World) -> None:
    run = await world.running()
    await world.agent.progress(run, 1, **epochs(2, earlier=(1,)))
    await world.pass_time()
    await world.kill_backend()
    await world.start_another_backend()
    await world.agent.accept(run)
    await world.pass_time(6)
    await world.agent.progress(run, 2, **epochs(4, earlier=(3,)))
    await world.pass_time()
    known = [epoch for epoch, _ in curve(world, run.request.operation_id)]
    assert known[:2] == [1, 2]
    assert known == sorted(set(known))


async def test_two_backends_that_hear_the_same_write_it_once(world: World) -> None:
    run = await world.running()
    told = TrainingProgress(
        **run.token,
        sequence=1,
        stage="Training",
        stage_number=6,
        stages=8,
        fraction=0.1,
        **epochs(2, earlier=(1,)),
    )
    for _ in range(2):
        recorder = ProgressRecorder(
            world.store, clock=world.clock, offload=inline, on_progress=lambda progress: None
        )
        recorder.record(told)
        await recorder.flush()
    assert curve(world, run.request.operation_id) == [(1, 1.0), (2, 0.5)]


@pytest.mark.parametrize("usual_database_url", ["sqlite"], indirect=True)
async def test_a_hundred_epochs_in_a_moment_are_one_commit(world: World) -> None:
    run = await world.running()
    recorder = ProgressRecorder(
        world.store, clock=world.clock, offload=inline, on_progress=lambda progress: None
    )
    for number in range(1, 101):
        recorder.record(
            TrainingProgress(
                **run.token,
                sequence=number,
                stage="T",
                stage_number=6,
                stages=8,
                fraction=0.1,
                **epochs(number),
            )
        )
    commits: list[object] = []
    sqlalchemy_event.listen(world.store._database._engine, "commit", commits.append)
    await recorder.flush()
    assert len(commits) == 1
    assert len(curve(world, run.request.operation_id)) == 100


async def test_once_a_model_has_its_own_the_line_is_forgotten(world: World) -> None:
    run = await world.running()
    await world.agent.progress(run, 1, **epochs(2, earlier=(1,)))
    await world.pass_time()
    await world.agent.finish(run)
    await world.pass_time()
    assert len(curve(world, run.request.operation_id)) == 2
    world.clock._elapsed += 2 * 86_400
    assert tidy(world.store, Retention.from_settings(Settings()))["curves"] == 1
    assert curve(world, run.request.operation_id) == []


async def test_the_api_tells_the_curve_while_it_runs_and_after_a_failure(
    api: Api, client: httpx.AsyncClient
) -> None:
    async with api.at_work():
        operation_id = await api.submitted()
        url = f"/api/v1/operations/{operation_id}/metrics"
        empty = (await client.get(url)).json()["data"]["metrics"]
        assert (empty["epochs"], empty["best_epoch"], empty["total_epochs_completed"]) == ([], None, 0)
        run = await api.agent.take()
        await api.until(operation_id, State.RUNNING)
        told = epochs(4, earlier=(1, 2))
        told["earlier"] = (*told["earlier"], EpochMetrics(epoch=3, metrics={"val_loss": 0.01}))
        await api.agent.progress(run, 1, **told)
        await eventually(lambda: read_curve(api.store, operation_id), "the curve")
        running = (await client.get(url)).json()["data"]["metrics"]
        assert running == {
            "epochs": [
                {"epoch": 1, "val_loss": 1.0},
                {"epoch": 2, "val_loss": 0.5},
                {"epoch": 3, "val_loss": 0.01},
                {"epoch": 4, "val_loss": 0.25},
            ],
            "best_epoch": 3,
            "best_val_loss": 0.01,
            "epochs_since_improvement": 1,
            "total_epochs_planned": 100,
            "total_epochs_completed": 4,
        }
        await api.agent.fail(run, FailureCause.STRATEGY_ERROR)
        await api.until(operation_id, State.FAILED)
        assert (await client.get(url)).json()["data"]["metrics"] == running
