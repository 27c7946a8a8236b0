"""Blobs that nothing needs are taken away, and never one that somebody needs, or is about to."""

import asyncio
import hashlib
import os
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import obstore
import pytest

from ktrdr.app.collecting import keep_collecting
from ktrdr.backend.collecting import claim_blobs, collect_blobs, unneeded_blobs, why_not_to_collect
from ktrdr.backend.housekeeping import tidy
from ktrdr.backend.retention import Retention
from ktrdr.backend.store import OperationStore
from ktrdr.backend.submitting import Submitter
from ktrdr.blobs import directory as directory_module
from ktrdr.blobs.store import blob_uri
from ktrdr.blobs.uploads import Uploads
from ktrdr.bus.dead_letters import dead_letter
from ktrdr.clock import SystemClock
from ktrdr.errors import BlobMissingError
from ktrdr.events import BlobRef, DatasetRef, Envelope, FailureCause, encode
from ktrdr.events.mentioned import blobs_named_in
from ktrdr.events.message import Message
from ktrdr.ids import RandomIds
from ktrdr.settings import Settings
from tests.contract.blob_harness import BlobHarness, DirectoryHarness, S3Harness
from tests.contract.virtual_clock import VirtualClock
from tests.unit.backend_cases import World, eventually, settings_in, started, wish

CONTENT = b"bars of EUR/USD"
SHA256 = hashlib.sha256(CONTENT).hexdigest()
REF = BlobRef(uri=blob_uri(SHA256), sha256=SHA256, size=len(CONTENT))
DAY = timedelta(days=1)
KEPT = 7 * DAY


@pytest.fixture
def store(tmp_path: Path, usual_database_url: str) -> Iterator[OperationStore]:
    with OperationStore.open(settings_in(tmp_path, database_url=usual_database_url)) as store:
        yield store


@pytest.fixture(params=["directory", "s3"])
def harness(request: pytest.FixtureRequest, tmp_path: Path) -> BlobHarness:
    return DirectoryHarness(tmp_path / "blobs") if request.param == "directory" else S3Harness()


@pytest.fixture
def directory(tmp_path: Path) -> DirectoryHarness:
    return DirectoryHarness(tmp_path / "blobs")


def old(harness: BlobHarness, content: bytes = CONTENT, by: timedelta = 8 * DAY) -> BlobRef:
    ref = harness.store.put(content)
    harness.age(ref.sha256, by)
    return ref


def collect(store: OperationStore, harness: BlobHarness, named: frozenset[str] = frozenset()) -> Any:
    return collect_blobs(store, harness.inventory, kept=KEPT, named=named)


def submit(store: OperationStore, ref: BlobRef = REF) -> str:
    """Record that an operation needs the blob."""
    (bars,) = wish().datasets
    asked = wish(datasets=(bars.model_copy(update={"blob": ref}),))
    return Submitter(Settings(), store).submit(asked).operation.operation_id


def is_there(harness: BlobHarness) -> bool:
    try:
        return harness.store.get(REF, limit_bytes=100) == CONTENT
    except BlobMissingError:
        return False


def finish_in_the_end(store: OperationStore, harness: BlobHarness) -> None:
    """Collect so late that whatever was left aside is old too."""
    for entry in list(harness.inventory.entries()):
        age_where_it_is(harness, entry.sha256, is_aside=entry.is_aside)
    collect(store, harness)


def age_where_it_is(harness: BlobHarness, sha256: str, *, is_aside: bool) -> None:
    if isinstance(harness, DirectoryHarness):
        path = harness.root / ("aside" if is_aside else "") / sha256[:2] / sha256[2:]
        then = path.stat().st_mtime - (8 * DAY).total_seconds()
        os.utime(path, (then, then))
    else:
        assert isinstance(harness, S3Harness)
        harness.age(sha256, 8 * DAY, aside=is_aside)


def test_an_old_blob_that_nothing_names_goes(store: OperationStore, harness: BlobHarness) -> None:
    ref = old(harness)
    assert [
        blob.sha256 for blob in unneeded_blobs(store, harness.inventory, kept=KEPT, named=frozenset())
    ] == [ref.sha256]
    collected = collect(store, harness)
    assert collected.removed + collected.waiting == 1
    finish_in_the_end(store, harness)
    assert not is_there(harness)
    assert list(harness.inventory.entries()) == []


def test_what_was_put_lately_stays(store: OperationStore, harness: BlobHarness) -> None:
    old(harness, by=6 * DAY)
    assert collect(store, harness).removed == 0
    assert is_there(harness)


def test_what_a_recorded_operation_names_stays_also_after_its_end(
    store: OperationStore, harness: BlobHarness
) -> None:
    old(harness)
    store.cancel(submit(store), "enough")
    for _ in range(2):
        finish_in_the_end(store, harness)
    assert is_there(harness)


def test_what_a_dead_letter_names_stays(store: OperationStore, harness: BlobHarness) -> None:
    old(harness)
    collect(store, harness, named=frozenset({SHA256}))
    assert is_there(harness)


@pytest.mark.parametrize("padding", [0, 5000], ids=["plain", "compressed"])
def test_a_dead_letter_names_blobs_whether_it_can_be_read_or_not(padding: int) -> None:
    (bars,) = wish().datasets
    strategy = wish().strategy.model_copy(update={"yaml": "#" * padding})
    event = _requested(bars.model_copy(update={"blob": REF}), strategy)
    message = encode(Envelope(event, event_id="e", sender="s", occurred_at=SystemClock().now()))
    assert (message.content_encoding == "zstd") == bool(padding)
    assert blobs_named_in(dead_letter(message, reason="r", queue="q")) == {SHA256}
    broken = Message(body=b"\xff no msgpack blob:" + SHA256.encode(), message_id="m", type="t")
    assert blobs_named_in(broken) == {SHA256}
    torn = Message(body=b"torn", message_id="m", type="t", content_encoding="zstd")
    assert blobs_named_in(torn) == frozenset()


def _requested(bars: DatasetRef, strategy: Any) -> Any:
    from ktrdr.events import TrainingRequested

    return TrainingRequested(
        operation_id=RandomIds().operation_id(SystemClock().now()),
        attempt=1,
        strategy=strategy,
        datasets=(bars,),
        seed=1,
        requested_at=SystemClock().now(),
        accept_within_s=60,
    )


async def test_what_may_be_the_result_of_an_operation_that_goes_on_stays_however_long_it_takes(
    tmp_path: Path, usual_database_url: str
) -> None:
    async with started(tmp_path, database_url=usual_database_url, lease_s=1e9) as world:
        run = await world.running()
        harness = DirectoryHarness(world.settings.blobs_dir)
        before, since = old(harness, b"before"), harness.store.put(b"since")
        _be_of_the_time(world, harness, since.sha256)
        await world.clock.advance(0)
        world.clock._elapsed += (30 * DAY).total_seconds()
        world_kept = {"kept": KEPT, "named": frozenset[str]()}
        _be_of_the_time(world, harness, before.sha256, earlier=31 * DAY)
        assert collect_blobs(world.store, harness.inventory, **world_kept).removed == 1
        assert not harness.store.exists(before.sha256)
        assert harness.store.exists(since.sha256)
        await world.agent.fail(run, FailureCause.STRATEGY_ERROR)
        await world.pass_time()
        assert collect_blobs(world.store, harness.inventory, **world_kept).removed == 1


def _be_of_the_time(
    world: World, harness: DirectoryHarness, sha256: str, earlier: timedelta = timedelta()
) -> None:
    """Give a blob the time of the virtual clock: its directory knows the real one only."""
    then = (world.clock.now() - earlier).timestamp()
    os.utime(harness.root / sha256[:2] / sha256[2:], (then, then))


async def test_the_bars_of_a_forgotten_operation_go_with_it(tmp_path: Path, usual_database_url: str) -> None:
    async with started(tmp_path, database_url=usual_database_url) as world:
        harness = DirectoryHarness(world.settings.blobs_dir)
        ref = harness.store.put(CONTENT)
        _be_of_the_time(world, harness, ref.sha256)
        (bars,) = wish().datasets
        operation_id = await world.submit(datasets=(bars.model_copy(update={"blob": ref}),))
        world.store.cancel(operation_id, "enough")
        await world.pass_time()
        world.clock._elapsed += (91 * DAY).total_seconds()
        kept: Any = {"kept": KEPT, "named": frozenset()}
        assert collect_blobs(world.store, harness.inventory, **kept).removed == 0
        tidy(world.store, Retention.from_settings(Settings()))
        assert collect_blobs(world.store, harness.inventory, **kept).removed == 1


# --- at the same moment -------------------------------------------------------------------------------

Step = tuple[Any, str]
STEPS: dict[str, list[Step]] = {
    "directory": [(Path, "rename"), (Path, "unlink"), (Path, "stat")],
    "s3": [(obstore, "head"), (obstore, "copy"), (obstore, "delete")],
}
EVERY_STEP = [
    pytest.param(kind, step, when, id=f"{kind}-{when}-{step[1]}")
    for kind, steps in STEPS.items()
    for step in steps
    for when in ("before", "after")
]


def at_step(
    monkeypatch: pytest.MonkeyPatch, step: Step, when: str, action: Callable[[], object]
) -> list[str]:
    """Have something done once, before or after the first call of a function that touches the blob."""
    owner, name = step
    real, done = getattr(owner, name), []

    def hooked(*arguments: Any, **options: Any) -> Any:
        touches = any(SHA256[2:] in str(argument) for argument in arguments)
        is_first = touches and not done
        if is_first:
            done.append(name)
        if is_first and when == "before":
            action()
        result = real(*arguments, **options)
        if is_first and when == "after":
            action()
        return result

    monkeypatch.setattr(owner, name, hooked)
    return done


def made(kind: str, tmp_path: Path) -> BlobHarness:
    return DirectoryHarness(tmp_path / "blobs") if kind == "directory" else S3Harness()


@pytest.mark.parametrize(("kind", "step", "when"), EVERY_STEP)
def test_a_submission_at_any_moment_of_a_collection_has_its_blob_now_and_later(
    store: OperationStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, step: Step, when: str
) -> None:
    harness = made(kind, tmp_path)
    old(harness)
    with monkeypatch.context() as patched:
        done = at_step(patched, step, when, lambda: harness.store.put(CONTENT))
        collect(store, harness)
        assert done
    assert is_there(harness)
    submit(store)
    for _ in range(2):
        finish_in_the_end(store, harness)
    assert is_there(harness)
    (only,) = harness.inventory.entries()
    assert not only.is_aside


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("step", [(os, "utime"), (directory_module, "is_intact"), (Path, "rename")])
def test_a_collection_at_any_moment_of_a_submission_leaves_its_blob(
    store: OperationStore,
    directory: DirectoryHarness,
    monkeypatch: pytest.MonkeyPatch,
    step: Step,
    when: str,
) -> None:
    old(directory)
    put: Callable[[], object] = lambda: directory.store.put(CONTENT)  # noqa: E731
    if step[1] == "rename":
        put = lambda: _upload(directory)  # noqa: E731
    with monkeypatch.context() as patched:
        at_step(patched, step, when, lambda: collect(store, directory))
        put()
    assert is_there(directory)
    submit(store)
    finish_in_the_end(store, directory)
    assert is_there(directory)


def _upload(harness: DirectoryHarness) -> None:
    uploads = Uploads(harness.inventory, limit_bytes=1000)  # type: ignore[arg-type]  # it is of a directory
    if not uploads.begin(SHA256, len(CONTENT)).complete:
        with uploads.open(SHA256, len(CONTENT), 0) as upload:
            upload.write(CONTENT)
            assert upload.keep().complete


@pytest.mark.parametrize(("kind", "step", "when"), EVERY_STEP)
def test_a_collector_that_is_killed_at_any_moment_leaves_a_whole_blob_or_none_to_the_next(
    store: OperationStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, step: Step, when: str
) -> None:
    harness = made(kind, tmp_path)
    old(harness)

    def die() -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        at_step(patched, step, when, die)
        with pytest.raises(KeyboardInterrupt):
            collect(store, harness)
    assert is_there(harness) or list(harness.inventory.entries()) == []
    for _ in range(2):
        finish_in_the_end(store, harness)
    assert list(harness.inventory.entries()) == []


def test_what_is_aside_and_needed_after_all_is_put_back(store: OperationStore, harness: BlobHarness) -> None:
    ref = old(harness)
    harness.inventory.set_aside(ref.sha256, SystemClock().now() - KEPT)
    assert [entry.is_aside for entry in harness.inventory.entries()] == [True]
    assert is_there(harness)
    submit(store)
    collect(store, harness)
    assert [entry.is_aside for entry in harness.inventory.entries()] == [False]
    assert is_there(harness)


def test_two_collectors_at_once_do_the_work_of_one(
    store: OperationStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    harness = made("directory", tmp_path)
    old(harness)
    with monkeypatch.context() as patched:
        at_step(patched, (Path, "rename"), "after", lambda: collect(store, harness))
        collect(store, harness)
    assert list(harness.inventory.entries()) == []


# --- whose it is --------------------------------------------------------------------------------------


def test_a_store_that_another_database_has_claimed_is_left_alone(
    store: OperationStore, harness: BlobHarness, tmp_path: Path
) -> None:
    assert why_not_to_collect(store, harness.inventory) is not None
    assert why_not_to_collect(store, harness.inventory, is_own=True) is None
    claim_blobs(store, harness.inventory)
    assert why_not_to_collect(store, harness.inventory) is None
    with OperationStore.open(settings_in(tmp_path / "elsewhere")) as other:
        claim_blobs(other, harness.inventory)
        assert "belongs to another database" in str(why_not_to_collect(other, harness.inventory, is_own=True))
    claim_blobs(store, harness.inventory)
    assert why_not_to_collect(store, harness.inventory) is None


async def test_a_backend_claims_its_store_and_collects_in_it_by_itself(
    tmp_path: Path, directory: DirectoryHarness
) -> None:
    settings, clock = settings_in(tmp_path), VirtualClock()
    old(directory)
    with OperationStore.open(settings) as store:
        collecting = asyncio.create_task(keep_collecting(settings, store, directory.inventory, clock=clock))
        try:
            await clock.advance(301)
            await eventually(lambda: not list(directory.inventory.entries()), "the collection")
            assert why_not_to_collect(store, directory.inventory) is None
        finally:
            collecting.cancel()
            await asyncio.gather(collecting, return_exceptions=True)
