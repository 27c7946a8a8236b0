"""Training data on the agent's disk."""

import hashlib
import os
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from host_agent.datasets import DatasetCache
from ktrdr.blobs.directory import DirectoryBlobStore
from ktrdr.bus.memory import MemoryBroker, MemoryBus
from ktrdr.clock import SystemClock
from ktrdr.errors import BlobMissingError, StorageFullError
from ktrdr.events import DatasetRef
from tests.small_disk import fill
from tests.unit.agent_cases import Backend, blob_ref


@pytest.fixture
def blobs(tmp_path: Path) -> DirectoryBlobStore:
    return DirectoryBlobStore(tmp_path / "blobs")


@pytest.fixture
def cached(tmp_path: Path) -> Path:
    directory = tmp_path / "datasets"
    directory.mkdir()
    return directory


@pytest.fixture
async def backend(blobs: DirectoryBlobStore) -> Iterator[Backend]:
    backend = Backend(MemoryBus(MemoryBroker()), blobs)
    yield backend
    await backend.bus.close()


def age(path: Path, seconds: float) -> None:
    before = path.stat()
    os.utime(path, (before.st_atime - seconds, before.st_mtime - seconds))


def cache_in(
    directory: Path, blobs: DirectoryBlobStore, *, limit_bytes: int, kept: timedelta | None = None
) -> DatasetCache:
    return DatasetCache(blobs, directory, limit_bytes=limit_bytes, kept=kept, clock=SystemClock())


def names(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir()}


def leave_half(directory: Path) -> None:
    (directory / ".half.part").write_bytes(b"x")


async def test_data_that_is_there_is_not_fetched_again(
    blobs: DirectoryBlobStore, cached: Path, backend: Backend
) -> None:
    cache = cache_in(cached, blobs, limit_bytes=1000)
    ref = backend.dataset(b"bars")
    [first] = await cache.fetch([ref])
    assert first.path.read_bytes() == b"bars"
    assert first.ref == ref
    blobs.delete(ref.blob.sha256)
    assert await cache.fetch([ref]) == (first,)


async def test_data_that_was_damaged_on_the_disk_is_fetched_again(
    blobs: DirectoryBlobStore, cached: Path, backend: Backend
) -> None:
    cache = cache_in(cached, blobs, limit_bytes=1000)
    ref = backend.dataset(b"bars")
    [dataset] = await cache.fetch([ref])
    dataset.path.write_bytes(b"rabs")
    [again] = await cache.fetch([ref])
    assert again.path.read_bytes() == b"bars"


async def test_what_was_not_used_for_longest_goes_first(
    blobs: DirectoryBlobStore, cached: Path, backend: Backend
) -> None:
    cache = cache_in(cached, blobs, limit_bytes=25)
    refs = [backend.dataset(bytes([number]) * 10) for number in range(3)]
    for ref, seconds in zip(refs[:2], (100, 200), strict=True):
        [dataset] = await cache.fetch([ref])
        age(dataset.path, seconds)
    await cache.fetch(refs[:1])  # used again
    await cache.fetch(refs[2:])
    assert names(cached) == {refs[0].blob.sha256, refs[2].blob.sha256}


async def test_what_an_attempt_uses_is_kept_though_it_is_over_the_limit(
    blobs: DirectoryBlobStore, cached: Path, backend: Backend
) -> None:
    cache = cache_in(cached, blobs, limit_bytes=5)
    used = [backend.dataset(b"a" * 10), backend.dataset(b"b" * 10)]
    with cache.in_use(used):
        datasets = await cache.fetch(used)
        await cache.fetch([backend.dataset(b"c" * 10)])
        assert all(dataset.path.exists() for dataset in datasets)
    await cache.fetch([backend.dataset(b"d" * 10)])
    assert not any(dataset.path.exists() for dataset in datasets)


async def test_what_a_killed_fetch_left_is_swept(
    blobs: DirectoryBlobStore, cached: Path, backend: Backend
) -> None:
    cache = cache_in(cached, blobs, limit_bytes=1000)
    [dataset] = await cache.fetch([backend.dataset()])
    leave_half(cached)
    cache.sweep()
    assert names(cached) == {dataset.path.name}


async def test_missing_data_is_an_error(blobs: DirectoryBlobStore, cached: Path, backend: Backend) -> None:
    cache = cache_in(cached, blobs, limit_bytes=1000)
    ref = backend.dataset().model_copy(update={"blob": blob_ref(b"never stored")})
    with pytest.raises(BlobMissingError):
        await cache.fetch([ref])


@pytest.mark.fault
async def test_a_full_disk_is_an_error_and_leaves_nothing(
    blobs: DirectoryBlobStore, backend: Backend, small_disk: Path
) -> None:
    directory = small_disk / "datasets"
    directory.mkdir()
    cache = cache_in(directory, blobs, limit_bytes=10**9)
    ref: DatasetRef = backend.dataset(b"x" * 100_000)
    filler = fill(small_disk, leave_bytes=8192)
    with pytest.raises(StorageFullError):
        await cache.fetch([ref])
    assert names(directory) == set()
    filler.unlink()
    [dataset] = await cache.fetch([ref])
    assert hashlib.sha256(dataset.path.read_bytes()).hexdigest() == ref.blob.sha256


async def test_what_was_not_used_for_long_goes_also_when_there_is_room(
    blobs: DirectoryBlobStore, cached: Path, backend: Backend
) -> None:
    cache = cache_in(cached, blobs, limit_bytes=1000, kept=timedelta(hours=1))
    old, used, young = (backend.dataset(content) for content in (b"old", b"used", b"young"))
    for dataset in await cache.fetch([old, used, young]):
        if dataset.ref != young:
            age(dataset.path, 3700)
    with cache.in_use([used]):
        cache.prune()
    assert names(cached) == {used.blob.sha256, young.blob.sha256}
