"""The training data of an attempt, on this machine's disk."""

import asyncio
import os
from collections import Counter
from collections.abc import Container, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path

from ktrdr.blobs.store import BlobStore, referred_sha256
from ktrdr.clock import Clock
from ktrdr.events.references import DatasetRef
from ktrdr.training.job import Dataset

_AT_ONCE = 2
"""Fetches: a store that is slow or away must not take all threads of the process."""


class DatasetCache:
    """Fetches datasets by hash, and keeps them for the next attempt up to a limit.

    What an attempt uses is never removed, even when it is more than the limit.

    Args:
        blobs: where they are fetched from.
        directory: where they are kept.
        limit_bytes: of all that is kept.
        kept: after its last use; None: for ever.
        clock: for the time of a use.
    """

    def __init__(
        self, blobs: BlobStore, directory: Path, *, limit_bytes: int, kept: timedelta | None, clock: Clock
    ) -> None:
        self._blobs = blobs
        self._directory = directory
        self._limit_bytes = limit_bytes
        self._kept = kept
        self._clock = clock
        self._in_use: Counter[str] = Counter()
        self._fetching = asyncio.Semaphore(_AT_ONCE)

    def sweep(self) -> None:
        """Remove what a predecessor was killed in the middle of; only when nothing is being fetched."""
        for path in self._directory.glob(".*"):
            path.unlink(missing_ok=True)

    def prune(self) -> None:
        """Remove what was not used for long, or is over the limit."""
        before = self._clock.now() - self._kept if self._kept is not None else None
        for path, _ in unused_datasets(
            self._directory, limit_bytes=self._limit_bytes, before=before, in_use=self._in_use
        ):
            path.unlink(missing_ok=True)

    @contextmanager
    def in_use(self, refs: Sequence[DatasetRef]) -> Iterator[None]:
        """Within it, none of these is removed."""
        names = [ref.blob.sha256 for ref in refs]
        self._in_use.update(names)
        try:
            yield
        finally:
            self._in_use -= Counter(names)  # unlike subtract(), it forgets what is at zero

    async def fetch(self, refs: Sequence[DatasetRef]) -> tuple[Dataset, ...]:
        """Return the datasets, each verified against its hash; one after the other.

        Raises:
            BlobError: one is missing, or its content is not what the reference says.
            StorageFullError: there is no space for it.
        """
        async with self._fetching:
            return tuple([await asyncio.to_thread(self._fetch, ref) for ref in refs])

    def _fetch(self, ref: DatasetRef) -> Dataset:
        path = self._blobs.fetch(ref.blob, self._directory / referred_sha256(ref.blob))
        now = self._clock.now().timestamp()
        os.utime(path, (now, now))
        self.prune()
        return Dataset(ref=ref, path=path)


def unused_datasets(
    directory: Path, *, limit_bytes: int, before: datetime | None, in_use: Container[str] = ()
) -> list[tuple[Path, int]]:
    """Return files of a cache that may go, and their sizes: those not used since, and for longest.

    Args:
        directory: of the cache.
        limit_bytes: what stays is within it.
        before: what was not used since may go; None: nothing because of its age.
        in_use: names of files that stay.
    """
    files = []
    for path in directory.iterdir():
        try:
            files.append((path.stat(), path))
        except FileNotFoundError:
            continue  # another slot was quicker
    total = sum(stat.st_size for stat, _ in files)
    unused = []
    for stat, path in sorted(files, key=lambda file: file[0].st_mtime):
        is_old = before is not None and stat.st_mtime < before.timestamp()
        # What begins with a dot is being fetched.
        is_free = path.name not in in_use and not path.name.startswith(".")
        if (is_old or total > limit_bytes) and is_free:
            unused.append((path, stat.st_size))
            total -= stat.st_size
    return unused
