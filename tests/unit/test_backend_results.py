"""The first valid model of an operation becomes a version, whole; everything else is answered and left."""

import hashlib
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from ktrdr.backend.states import State
from ktrdr.bus.memory import MemoryBroker
from ktrdr.bus.topology import BACKEND_EVENTS, DEAD_LETTERS
from ktrdr.clock import SystemClock
from ktrdr.errors import BlobError, StorageFullError
from ktrdr.events import BlobRef, Codec, FailureCause, InlineModel, ModelReady
from ktrdr.events.compression import compress
from ktrdr.models.directory import ModelDirectory, StagedModel
from tests.small_disk import fill
from tests.unit.backend_cases import (
    Run,
    ScriptedAgent,
    World,
    model_files,
    real_backend,
    result,
    settings_in,
    started,
    wish,
)


@pytest.fixture
async def world(tmp_path: Path, usual_database_url: str) -> AsyncIterator[World]:
    async with started(tmp_path, database_url=usual_database_url) as world:
        yield world


def _models(world: World) -> list[str]:
    return [model.name for model in reversed(world.store.models.list_models())]


def _files(directory: Path) -> set[Path]:
    return {path for path in directory.rglob("*") if path.is_file() and "home" not in path.parts}


def _is_for_people(line: Mapping[str, Any]) -> bool:
    return bool(line["log_level"] != "debug")


def _verified(world: World) -> bool:
    directory = ModelDirectory(world.settings.models_dir)
    return all(directory.verify(m.name, m.files) == [] for m in world.store.models.list_models())


async def test_a_model_is_registered_byte_for_byte(world: World) -> None:
    run = await world.running()
    event = await world.agent.finish(run)
    await world.pass_time()

    operation = world.get(run)
    assert (operation.state, operation.model) == (State.COMPLETED, "momentum/EURUSD_1h_v1")
    assert operation.metrics == event.manifest.metrics
    path = world.settings.models_dir / "momentum" / "EURUSD_1h_v1"
    assert {name: (path / name).read_bytes() for name in model_files()} == model_files()
    assert (path.parent / "EURUSD_1h_latest").readlink() == Path("EURUSD_1h_v1")
    model = world.store.models.find("momentum")
    assert (model.version, model.operation_id, model.manifest) == (
        1,
        operation.operation_id,
        event.manifest,
    )
    assert _verified(world)
    (answer,) = world.agent.persisted()
    assert (answer.claim_id, answer.model, answer.model_version) == (run.claim_id, model.name, 1)
    assert answer.bundle_sha256 == event.manifest.bundle_sha256


async def test_versions_count_on_and_latest_leads_to_the_newest(world: World) -> None:
    for _ in range(3):
        await world.agent.finish(await world.running())
        await world.pass_time()
    assert _models(world) == [f"momentum/EURUSD_1h_v{number}" for number in (1, 2, 3)]
    link = world.settings.models_dir / "momentum" / "EURUSD_1h_latest"
    assert link.readlink() == Path("EURUSD_1h_v3")


async def test_a_model_by_reference_is_fetched(world: World) -> None:
    run = await world.running()
    manifest, bundle = result(run.request)
    blob = world.backend_blobs.put(compress(bundle), codec=Codec.ZSTD)
    await world.agent.say(ModelReady(**run.token, manifest=manifest, blob=blob))
    await world.pass_time()
    assert world.get(run).state is State.COMPLETED


async def test_a_model_that_comes_again_is_answered_again_and_registered_once(world: World) -> None:
    run = await world.running()
    event = world.agent.model(run)
    event_id = await world.agent.say(event)
    await world.agent.say(event, event_id)
    await world.agent.say(event)
    await world.pass_time()
    assert len(world.agent.persisted()) == 3
    assert _models(world) == ["momentum/EURUSD_1h_v1"]


async def test_the_first_model_wins_whichever_attempt_made_it_and_the_other_run_is_stopped(
    world: World,
) -> None:
    first = await world.running()
    await world.pass_time(32)  # its lease expires; its run goes on
    second = await world.agent.take()
    await world.pass_time()
    await world.agent.finish(first)
    await world.pass_time()
    assert world.get(first).state is State.COMPLETED
    assert [(stop.attempt, stop.claim_id) for stop in world.agent.stops()] == [(2, second.claim_id)]

    other = world.agent.model(second, model_files(b"other weights"))
    await world.agent.say(other)
    await world.pass_time()
    (discarded,) = world.agent.discarded()
    assert discarded.claim_id == second.claim_id
    assert "momentum/EURUSD_1h_v1" in discarded.reason
    assert _models(world) == ["momentum/EURUSD_1h_v1"]


async def test_a_detached_run_s_model_spares_the_attempt_that_was_about_to_follow(world: World) -> None:
    run = await world.running()
    await world.agent.fail(run)  # its retry waits for a second
    await world.agent.finish(run)
    await world.pass_time(5)
    assert world.get(run).state is State.COMPLETED
    assert world.agent.waiting == 0


async def test_a_model_of_an_operation_that_nobody_knows_is_discarded(world: World) -> None:
    run = await world.running()
    lost = Run(run.request.model_copy(update={"operation_id": "op-lost"}), "claim-9", "agent-1")
    await world.agent.finish(lost)
    await world.pass_time()
    assert [event.operation_id for event in world.agent.discarded()] == ["op-lost"]


# --- verification


def _changed(event: ModelReady, data: bytes, codec: Codec = Codec.NONE) -> ModelReady:
    return event.model_copy(update={"inline": InlineModel(codec=codec, data=data)})


def _bundle(run: Run) -> bytes:
    return result(run.request)[1]


def _with_manifest(**changes: Any) -> Callable[[World, Run], ModelReady]:
    def make(world: World, run: Run) -> ModelReady:
        event = world.agent.model(run)
        return event.model_copy(update={"manifest": event.manifest.model_copy(update=changes)})

    return make


def _of_other_files(world: World, run: Run) -> ModelReady:
    honest, bundle = result(run.request)
    other, _ = result(run.request, model_files(b"others"))
    lying = other.model_copy(
        update={
            "bundle_sha256": honest.bundle_sha256,
            "bundle_size": honest.bundle_size,
            "weights_sha256": honest.weights_sha256,
        }
    )
    return ModelReady(**run.token, manifest=lying, inline=InlineModel(codec=Codec.NONE, data=bundle))


def _not_a_bundle(world: World, run: Run) -> ModelReady:
    data = b"\x93 no map"
    return _changed(
        _with_manifest(bundle_size=len(data), bundle_sha256=hashlib.sha256(data).hexdigest())(world, run),
        data,
    )


BAD_RESULTS: dict[str, Callable[[World, Run], ModelReady]] = {
    "one bit is flipped": lambda world, run: _changed(
        world.agent.model(run), bytes([_bundle(run)[0] ^ 1]) + _bundle(run)[1:]
    ),
    "its end is missing": lambda world, run: _changed(world.agent.model(run), _bundle(run)[:-1]),
    "it is longer": lambda world, run: _changed(world.agent.model(run), _bundle(run) + b"\0"),
    "it is empty": lambda world, run: _changed(world.agent.model(run), b""),
    "it is not compressed as it says": lambda world, run: _changed(
        world.agent.model(run), _bundle(run), Codec.ZSTD
    ),
    "it would fill the memory": lambda world, run: _changed(
        world.agent.model(run), compress(bytes(100_000_000)), Codec.ZSTD
    ),
    "it is over the limit": _with_manifest(bundle_size=10**12),
    "it is no bundle": _not_a_bundle,
    "its files are others": _of_other_files,
    "its weights are others": _with_manifest(weights_sha256="0" * 64),
    "it is of another strategy": _with_manifest(strategy="other"),
    "it is of another text of the strategy": _with_manifest(strategy_sha256="0" * 64),
    "it is of another symbol": _with_manifest(symbol="GBPUSD"),
    "it is of another timeframe": _with_manifest(timeframe="1d"),
    "it has another seed": _with_manifest(seed=8),
    "its blob is missing": lambda world, run: ModelReady(
        **run.token,
        manifest=result(run.request)[0],
        blob=BlobRef(uri=f"blob:{'a' * 64}", sha256="a" * 64, size=10),
    ),
    "its blob lies elsewhere": lambda world, run: ModelReady(
        **run.token,
        manifest=result(run.request)[0],
        blob=BlobRef(uri="file:///etc/passwd", sha256="a" * 64, size=10),
    ),
}


@pytest.mark.parametrize("what", BAD_RESULTS)
async def test_a_result_that_is_not_what_it_says_is_discarded_and_the_attempt_made_again(
    world: World, what: str
) -> None:
    run = await world.running()
    event = BAD_RESULTS[what](world, run)
    event_id = await world.agent.say(event)
    await world.agent.say(event, event_id)
    await world.pass_time()
    assert (world.get(run).state, world.get(run).attempt) == (State.QUEUED, 2)
    assert world.story(run).count("result_rejected") == 1
    assert len(world.agent.discarded()) == 2
    assert not (world.settings.models_dir / "momentum").exists()

    await world.pass_time(2)
    await world.agent.finish(await world.agent.take())
    await world.pass_time()
    assert world.get(run).state is State.COMPLETED


async def test_results_that_are_always_bad_fail_the_operation(world: World) -> None:
    run = await world.running(max_attempts=1)
    await world.agent.finish(run, seed=8)
    await world.pass_time()
    assert world.get(run).cause is FailureCause.RESULT_REJECTED
    assert "seed" in (world.get(run).message or "")


async def test_a_model_over_the_limit_of_this_installation_is_rejected(tmp_path: Path) -> None:
    async with started(tmp_path, max_model_bytes=100) as world:
        run = await world.running()
        await world.agent.finish(run)
        await world.pass_time()
        assert world.get(run).attempt == 2


async def test_names_in_a_manifest_write_nothing_outside_the_models_directory(
    world: World, tmp_path: Path
) -> None:
    before = _files(tmp_path)
    run = await world.running()
    event = world.agent.model(run)
    manifest = event.manifest.model_copy(update={"strategy": "../../escaped", "symbol": "/etc/passwd"})
    await world.agent.say(event.model_copy(update={"manifest": manifest}))
    await world.pass_time()
    assert _files(tmp_path) == before
    assert world.get(run).state is State.RUNNING  # the codec has dead-lettered it


# --- reports


async def test_a_report_is_written_beside_the_model_and_verified_with_it(tmp_path: Path) -> None:
    contexts: list[Any] = []

    def render(files: Mapping[str, bytes], context: Any) -> bytes:
        contexts.append(context)
        return b"<html>" + files["strategy.yaml"]

    async with started(tmp_path, backend={"render_report": render}) as world:
        run = await world.running()
        await world.agent.finish(run)
        await world.pass_time()
        report = world.settings.models_dir / "momentum" / "EURUSD_1h_v1" / "report.html"
        assert report.read_bytes() == b"<html>" + model_files()["strategy.yaml"]
        assert "report.html" in world.store.models.find("momentum").files
        assert _verified(world)
        (context,) = contexts
        assert (context.model_name, context.model_version) == ("momentum/EURUSD_1h_v1", 1)
        assert (context.operation_id, context.attempt, context.agent) == (
            run.request.operation_id,
            1,
            "agent-1",
        )


async def test_a_report_that_cannot_be_rendered_costs_no_model(tmp_path: Path) -> None:
    def render(files: Mapping[str, bytes], context: Any) -> bytes:
        raise ZeroDivisionError("no trades")

    async with started(tmp_path, backend={"render_report": render}) as world:
        run = await world.running()
        await world.agent.finish(run)
        await world.pass_time()
        assert world.get(run).state is State.COMPLETED
        assert "report_failed" in world.story(run)
        assert _verified(world)


async def test_the_report_has_the_right_number_when_another_process_was_faster(tmp_path: Path) -> None:
    rendered: list[int] = []
    worlds: list[World] = []

    def render(files: Mapping[str, bytes], context: Any) -> bytes:
        rendered.append(context.model_version)
        if len(rendered) == 1:
            worlds[0].register_elsewhere()
        return str(context.model_version).encode()

    async with started(tmp_path, backend={"render_report": render}) as world:
        worlds.append(world)
        run = await world.running()
        await world.agent.finish(run)
        await world.pass_time()
        assert rendered == [1, 2]
        path = world.settings.models_dir / "momentum" / "EURUSD_1h_v2"
        assert (path / "report.html").read_bytes() == b"2"
        assert world.get(run).model == "momentum/EURUSD_1h_v2"


async def test_an_agent_whose_model_was_just_persisted_is_told_so_once_and_to_stop_only_if_it_goes_on(
    world: World,
) -> None:
    run = await world.running()
    await world.agent.finish(run)
    await world.pass_time()
    await world.agent.present(run)
    await world.pass_time()
    assert len(world.agent.persisted()) == 1
    assert world.agent.stops() == []

    await world.pass_time(3)
    await world.agent.present(run)
    await world.pass_time()
    (stop,) = world.agent.stops()
    assert stop.claim_id == run.claim_id


async def test_of_results_that_come_at_once_each_is_made_a_version_once(tmp_path: Path) -> None:
    rendered: list[int] = []

    def render(files: Mapping[str, bytes], context: Any) -> bytes:
        rendered.append(context.model_version)
        time.sleep(0.02)  # as work that lets others in
        return b"a report"

    broker, clock = MemoryBroker(SystemClock()), SystemClock()
    backend, store = real_backend(settings_in(tmp_path), broker, render_report=render)
    agent = ScriptedAgent(broker, clock)
    await agent.start()
    async with backend:
        operations = [(await backend.submit(wish())).operation.operation_id for _ in range(4)]
        runs = [await agent.take() for _ in operations]
        for run in runs:
            await agent.finish(run)
        for operation_id in operations:
            assert (await backend.wait(operation_id)).state is State.COMPLETED
    await agent.stop()
    store.close()
    assert rendered == [1, 2, 3, 4]


# --- what is in the way


@pytest.mark.fault
async def test_a_model_waits_for_space_on_a_full_disk_and_is_registered_then(
    tmp_path: Path, small_disk: Path
) -> None:
    async with started(tmp_path, models_dir=small_disk / "models") as world:
        run = await world.running()
        filler = fill(small_disk, 2000)
        await world.agent.say(world.agent.model(run, model_files(bytes(5000))))
        await world.pass_time(100)
        assert world.get(run).state is State.RUNNING
        waits = [e.message for e in world.store.history(run.request.operation_id) if e.kind == "result_waits"]
        assert len(waits) == 1
        assert "the model needs 20," in waits[0]
        assert "Free some space" in waits[0]
        assert world.get(run).message == waits[0]
        assert _files(small_disk) == {filler}

        filler.unlink()
        await world.pass_time(11)
        operation = world.get(run)
        assert (operation.state, operation.attempt, operation.message) == (State.COMPLETED, 1, None)
        assert _verified(world)


@pytest.mark.fault
async def test_a_disk_that_stays_full_is_no_death_of_a_result_however_long_it_lasts(
    tmp_path: Path, small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ktrdr.backend.settling._HOLD_S", 2.0)
    async with started(tmp_path, models_dir=small_disk / "models") as world:
        run, other = await world.running(), await world.running()
        filler = fill(small_disk, 2000)
        with capture_logs() as logs:
            await world.agent.say(world.agent.model(run, model_files(bytes(5000))))
            await world.pass_time(240)  # a queue gives up a message that is given back 20 times
            await world.agent.finish(other)
            await world.pass_time(60)
        (told,) = [line for line in logs if line["event"] == "not listening" and _is_for_people(line)]
        assert "is full: the model needs 20," in told["reason"]
        assert sum(line["event"] == "event waits" and _is_for_people(line) for line in logs) <= 2
        assert world.backend.held_up_by == told["reason"]
        assert world.broker.queue_depth(BACKEND_EVENTS) == 2
        assert (world.get(run).state, world.get(run).attempt) == (State.RUNNING, 1)

        filler.unlink()
        await world.pass_time(30)
        assert [world.get(each).state for each in (run, other)] == [State.COMPLETED] * 2
        assert [world.get(each).attempt for each in (run, other)] == [1, 1]
        assert world.backend.held_up_by is None
        assert [world.broker.queue_depth(queue) for queue in (BACKEND_EVENTS, DEAD_LETTERS)] == [0, 0]
        assert _verified(world)


async def test_what_waits_for_a_blob_store_that_stays_away_can_be_cancelled_and_holds_up_nothing_then(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ktrdr.backend.settling._HOLD_S", 2.0)
    run = await world.running()
    manifest, bundle = result(run.request)
    blob = world.backend_blobs.put(bundle)
    store = world.settings.blobs_dir
    store.rename(store.with_name("elsewhere"))
    await world.agent.say(ModelReady(**run.token, manifest=manifest, blob=blob))
    await world.pass_time(60)
    assert world.backend.held_up_by is not None

    await world.backend.cancel(run.request.operation_id, "enough")
    await world.pass_time(15)
    assert world.backend.held_up_by is None
    assert world.get(run).state is State.CANCELLED
    assert world.broker.queue_depth(DEAD_LETTERS) == 0


@pytest.mark.fault
async def test_a_model_that_waits_for_space_can_be_cancelled(tmp_path: Path, small_disk: Path) -> None:
    async with started(tmp_path, models_dir=small_disk / "models") as world:
        run = await world.running()
        filler = fill(small_disk)
        await world.agent.finish(run)
        await world.pass_time(20)
        await world.backend.cancel(run.request.operation_id, "enough")
        await world.pass_time(0.5)
        assert world.get(run).state is State.CANCELLED
        assert len(world.agent.discarded()) == 1
        assert _files(small_disk) == {filler}


@pytest.mark.fault
async def test_a_full_disk_of_the_database_delays_and_loses_nothing(tmp_path: Path, small_disk: Path) -> None:
    async with started(tmp_path, database_url=f"sqlite:///{small_disk / 'ktrdr.db'}") as world:
        run = await world.running()
        filler = fill(small_disk)
        await world.agent.finish(run)
        await world.pass_time(60)
        assert world.get(run).state is State.RUNNING
        assert not (world.settings.models_dir / "momentum" / "EURUSD_1h_v1").exists()
        filler.unlink()
        await world.pass_time(30)
        assert world.get(run).state is State.COMPLETED
        assert _models(world) == ["momentum/EURUSD_1h_v1"]
        assert _verified(world)
        assert not (world.settings.models_dir / ".replaced").exists()


async def test_a_models_directory_that_cannot_be_written_holds_the_model_back(world: World) -> None:
    world.settings.models_dir.mkdir()
    (world.settings.models_dir / "momentum").write_text("in the way")
    run = await world.running()
    await world.agent.finish(run)
    await world.pass_time(20)
    assert world.get(run).state is State.RUNNING
    (world.settings.models_dir / "momentum").unlink()
    await world.pass_time(11)
    assert world.get(run).state is State.COMPLETED


async def test_a_blob_store_that_does_not_answer_holds_the_model_back(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = await world.running()
    manifest, bundle = result(run.request)
    blob = world.backend_blobs.put(bundle)
    away = True
    stream = type(world.backend_blobs).stream

    def sometimes(self: Any, ref: BlobRef, limit_bytes: int) -> Iterator[bytes]:
        for number, piece in enumerate(stream(self, ref, limit_bytes)):
            if away and number == 0:
                raise BlobError("The blob store does not answer.")
            yield piece

    monkeypatch.setattr(type(world.backend_blobs), "stream", sometimes)
    await world.agent.say(ModelReady(**run.token, manifest=manifest, blob=blob))
    await world.pass_time(60)
    assert world.get(run).state is State.RUNNING
    away = False
    await world.pass_time(11)
    assert world.get(run).state is State.COMPLETED


class FailingCommit(ModelDirectory):
    """Publishes, and then has the transaction fail."""

    failures = 1

    def publish(self, staged: StagedModel, name: str) -> Path:
        path = super().publish(staged, name)
        if self.failures:
            self.failures -= 1
            raise StorageFullError("The disk became full in the commit.")
        return path


async def test_a_version_whose_commit_fails_is_taken_back(tmp_path: Path) -> None:
    directory = FailingCommit(tmp_path / "models")
    async with started(tmp_path, backend={"models": directory}) as world:
        run = await world.running()
        await world.agent.finish(run)
        await world.pass_time(0.2)
        assert world.get(run).state is State.RUNNING
        assert not (tmp_path / "models" / "momentum" / "EURUSD_1h_v1").exists()
        await world.pass_time(2)
        assert world.get(run).state is State.COMPLETED
        assert _verified(world)
        assert list((tmp_path / "models" / ".staging").iterdir()) == []


async def test_links_and_leftovers_are_put_right_at_the_start(tmp_path: Path) -> None:
    async with started(tmp_path) as world:
        await world.agent.finish(await world.running())
        await world.pass_time()
    models = tmp_path / "models"
    (models / "momentum" / "EURUSD_1h_latest").unlink()
    (models / ".staging" / "dead~0123").mkdir()
    async with started(tmp_path):
        assert (models / "momentum" / "EURUSD_1h_latest").readlink() == Path("EURUSD_1h_v1")
        assert list((models / ".staging").iterdir()) == []
