"""The training data of an attempt, on this machine's disk."""

import asyncio
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from ktrdr.blobs.store import BlobStore, referred_sha256
from ktrdr.events.references import DatasetRef
from ktrdr.training.job import Dataset

_AT_ONCE = 2
"""Fetches: a store that is slow or away must not take all threads of the process."""


class DatasetCache:
    """Fetches datasets by hash, and keeps them for the next attempt up to a limit.

    What an attempt uses is never removed, even when it is more than the limit.
    """

    def __init__(self, blobs: BlobStore, directory: Path, *, limit_bytes: int) -> None:
        self._blobs = blobs
        self._directory = directory
        self._limit_bytes = limit_bytes
        self._in_use: Counter[str] = Counter()
        self._fetching = asyncio.Semaphore(_AT_ONCE)

    def sweep(self) -> None:
        """Remove what a predecessor was killed in the middle of; only when nothing is being fetched."""
        for path in self._directory.glob(".*"):
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
        os.utime(path)
        self._prune()
        return Dataset(ref=ref, path=path)

    def _prune(self) -> None:
        """Remove what was not used for longest, until the rest is within the limit."""
        files = []
        for path in self._directory.iterdir():
            try:
                files.append((path.stat(), path))
            except FileNotFoundError:
                continue  # another slot was quicker
        total = sum(stat.st_size for stat, _ in files)
        for stat, path in sorted(files, key=lambda file: file[0].st_mtime):
            if total <= self._limit_bytes:
                return
            if self._in_use[path.name] <= 0 and not path.name.startswith("."):
                path.unlink(missing_ok=True)
                total -= stat.st_size
