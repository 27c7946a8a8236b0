"""Models that come by reference: what the store has of them, and when."""

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from ktrdr.backend.states import State
from ktrdr.events import BlobRef, ModelReady
from tests.unit.backend_cases import World, model_files, result, started


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with started(tmp_path) as world:
        yield world


def stored_at(world: World, ref: BlobRef) -> Path:
    return world.backend_blobs.root / ref.sha256[:2] / ref.sha256[2:]


async def test_a_model_is_persisted_as_it_lies_in_the_store(world: World) -> None:
    run = await world.running()
    manifest, bundle = result(run.request)
    await world.agent.say(ModelReady(**run.token, manifest=manifest, blob=world.backend_blobs.put(bundle)))
    await world.pass_time()
    assert world.get(run).state is State.COMPLETED
    path = world.settings.models_dir / "momentum" / "EURUSD_1h_v1"
    assert {name: (path / name).read_bytes() for name in model_files()} == model_files()


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def lengthen(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\0")


def flip_the_last_bit(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))


def flip_the_first_bit(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(bytes([content[0] ^ 1]) + content[1:])


@pytest.mark.fault
@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (cut_short, "bytes in place of"),
        (lengthen, "bytes in place of"),
        (flip_the_last_bit, "has other content"),
        (flip_the_first_bit, "has other content"),
        (Path.unlink, "There is no blob"),
    ],
)
async def test_a_model_that_is_damaged_in_the_store_is_rejected_with_the_reason_and_made_again(
    world: World, damage: Callable[[Path], None], reason: str
) -> None:
    run = await world.running()
    manifest, bundle = result(run.request)
    blob = world.backend_blobs.put(bundle)
    damage(stored_at(world, blob))
    await world.agent.say(ModelReady(**run.token, manifest=manifest, blob=blob))
    await world.pass_time()
    (answer,) = world.agent.discarded()
    assert reason in answer.reason
    assert (world.get(run).state, world.get(run).attempt) == (State.QUEUED, 2)
    assert not (world.settings.models_dir / "momentum").exists()

    await world.pass_time(2)
    again = await world.agent.take()
    manifest, bundle = result(again.request)
    await world.agent.say(ModelReady(**again.token, manifest=manifest, blob=world.backend_blobs.put(bundle)))
    await world.pass_time()
    assert world.get(run).state is State.COMPLETED


async def test_a_blob_that_the_manifest_does_not_speak_of_is_rejected_unread(world: World) -> None:
    run = await world.running()
    manifest, bundle = result(run.request)
    other = world.backend_blobs.put(bundle + b"x")
    await world.agent.say(ModelReady(**run.token, manifest=manifest, blob=other))
    await world.agent.say(
        ModelReady(**run.token, manifest=manifest.model_copy(update={"bundle_size": other.size}), blob=other)
    )
    await world.pass_time()
    reasons = [answer.reason for answer in world.agent.discarded()]
    assert "its manifest says" in reasons[0]
    assert reasons[1].startswith(f"Its SHA-256 is {other.sha256}")


@pytest.mark.fault
@pytest.mark.parametrize("is_empty", [False, True], ids=["gone", "an empty mount point"])
async def test_a_model_in_a_store_that_is_not_mounted_waits_and_is_taken_when_it_is_back(
    world: World, is_empty: bool
) -> None:
    run = await world.running()
    manifest, bundle = result(run.request)
    blob = world.backend_blobs.put(bundle)
    root, elsewhere = world.settings.blobs_dir, world.settings.home / "elsewhere"
    root.rename(elsewhere)
    if is_empty:
        root.mkdir()
    await world.agent.say(ModelReady(**run.token, manifest=manifest, blob=blob))
    await world.pass_time(60)
    operation = world.get(run)
    assert (operation.state, operation.attempt, world.agent.discarded()) == (State.RUNNING, 1, [])
    assert f"The blob store {root} is away" in (operation.message or "")

    if is_empty:
        root.rmdir()
    elsewhere.rename(root)
    await world.pass_time(15)
    operation = world.get(run)
    assert (operation.state, operation.attempt, operation.message) == (State.COMPLETED, 1, None)
