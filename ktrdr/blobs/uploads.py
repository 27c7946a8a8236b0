"""Blobs that come in pieces: beside a directory store until they are whole and verified."""

import fcntl
import os
import shutil
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from io import FileIO
from pathlib import Path

from ktrdr.blobs.directory import DirectoryBlobStore
from ktrdr.blobs.store import blob_uri, checked_sha256
from ktrdr.blobs.verified import disk_errors, files_before, read_chunks, sync_directory, verified
from ktrdr.errors import BlobCorruptError, BlobError, BlobRefusedError, StorageFullError
from ktrdr.events.references import BlobRef
from ktrdr.lock_files import is_at

_UPLOADS = "uploads"
ABANDONED_AFTER = timedelta(days=1)
"""Whoever sends a blob goes on with it much sooner."""


@dataclass(frozen=True, slots=True)
class UploadState:
    """How much of a blob has come."""

    offset: int
    """Bytes that need not be sent again."""
    complete: bool
    """Whether the blob is in the store."""


class WrongOffsetError(BlobError):
    """What is sent does not continue what has come."""

    def __init__(self, sha256: str, given: int, offset: int) -> None:
        self.offset = offset
        """Where to go on."""
        super().__init__(
            f"{offset:,} bytes of blob {sha256} have come, so that it does not go on at {given:,}.",
            fix=f"Go on at {offset}.",
        )


class UploadBusyError(BlobError):
    """Someone else is just sending this blob."""

    retryable = True

    def __init__(self, sha256: str, offset: int) -> None:
        self.offset = offset
        """How much of it has come, for whoever waits."""
        super().__init__(f"Someone else is just sending blob {sha256}.", fix="Ask again in a moment.")


class Uploads:
    """Receives blobs in pieces: what has come survives a lost connection and a restart of either side.

    A partial blob is a file named by the hash that it shall have; whoever writes to it holds a lock on it, so
    that of two who send the same blob one waits for the other. The lock ends with its process.

    Args:
        store: where blobs go that are whole.
        limit_bytes: no blob may be larger.
    """

    def __init__(self, store: DirectoryBlobStore, *, limit_bytes: int) -> None:
        self.store = store
        self.limit_bytes = limit_bytes
        self._directory = store.root / _UPLOADS

    def begin(self, sha256: str, size: int) -> UploadState:
        """Return where to go on, which is nowhere if the blob is there: then its ``modified`` time is now.

        Raises:
            UploadBusyError: someone else is sending it.
            BlobRefusedError: it is no hash, or the blob would be too large.
            StorageFullError: the rest would not find space.
            BlobUnavailableError: the directory of the store is away.
            BlobError: the disk cannot be written.
        """
        ref = self._reference(sha256, size)
        if self.store.renew(ref):
            self._forget(ref)
            return UploadState(size, complete=True)
        offset = 0
        # What has come of something else is discarded.
        with suppress(BlobCorruptError), self._open(ref) as upload:
            if upload.offset == 0 and self.store.renew(ref):
                # Who sent it has finished between the first look and this.
                upload.remove()
                return UploadState(size, complete=True)
            if upload.missing < 0:
                upload.restart()
            if upload.missing == 0:
                return upload.keep()
            offset = upload.offset
        self._check_space(size - offset)
        return UploadState(offset, complete=False)

    def open(self, sha256: str, size: int, offset: int) -> "Upload":
        """Return an upload to go on with, and to close.

        Raises:
            WrongOffsetError: another number of bytes has come.
            UploadBusyError: someone else has it open.
            BlobRefusedError: it is no hash, or the blob would be too large.
            StorageFullError: the disk is full.
            BlobError: the disk cannot be written.
        """
        upload = self._open(self._reference(sha256, size))
        if upload.offset == offset:
            return upload
        with upload:
            if upload.offset == 0:
                upload.remove()
            raise WrongOffsetError(sha256, offset, upload.offset)

    def remove_abandoned(self, before: datetime) -> int:
        """Remove partial blobs that got nothing since that time, and return their number.

        Args:
            before: aware.
        """
        removed = 0
        for path, _ in self.abandoned(before):
            with suppress(UploadBusyError), disk_errors(f"{path} cannot be removed"), _lock(path):
                if path.stat().st_mtime < before.timestamp():
                    path.unlink()
                    removed += 1
        return removed

    def abandoned(self, before: datetime) -> list[tuple[Path, int]]:
        """Return partial blobs that got nothing since that time, and what has come of each."""
        return files_before(self._directory.glob("[0-9a-f]" * 64), before)

    def _reference(self, sha256: str, size: int) -> BlobRef:
        checked_sha256(sha256)
        if size > self.limit_bytes:
            raise BlobRefusedError(
                f"Blob {sha256} would have {size:,} bytes; the limit is {self.limit_bytes:,}.",
                fix="Raise KTRDR_MAX_MODEL_BYTES at the backend, or make the model smaller.",
            )
        return BlobRef(uri=blob_uri(sha256), sha256=sha256, size=size)

    def _open(self, ref: BlobRef) -> "Upload":
        path = self._directory / ref.sha256
        self.store.prepare()
        with disk_errors(f"Blob {ref.sha256} cannot be received in {self._directory}"):
            self._directory.mkdir(parents=True, exist_ok=True)
            return Upload(self.store, ref, path, _lock(path))

    def _forget(self, ref: BlobRef) -> None:
        """Remove what someone has begun anew who did not know yet that another had finished."""
        if (self._directory / ref.sha256).exists():
            with suppress(UploadBusyError), self._open(ref) as upload:
                upload.remove()

    def _check_space(self, needed: int) -> None:
        with disk_errors(f"The free space of {self._directory} cannot be told"):
            free = shutil.disk_usage(self._directory).free
        if needed > free:
            raise StorageFullError(
                f"The disk of {self.store.root} has {free:,} bytes free, and {needed:,} more would come.",
                fix="Free some space at the backend; the upload goes on by itself.",
            )


class Upload:
    """A blob that is being received; made by `Uploads`. Calls block, and what was written stays.

    Args:
        store: where it goes when it is whole.
        ref: what it shall be.
        path: where it is as yet.
        file: open for reading and writing, and locked.
    """

    def __init__(self, store: DirectoryBlobStore, ref: BlobRef, path: Path, file: FileIO) -> None:
        self._store = store
        self._ref = ref
        self._path = path
        self._file = file
        self.offset = file.seek(0, os.SEEK_END)
        """Bytes that have come."""

    def __enter__(self) -> "Upload":
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()

    def close(self) -> None:
        """Let others go on with it. May be called again."""
        self._file.close()

    @property
    def missing(self) -> int:
        """Bytes that are still to come; negative if it cannot be this blob."""
        return self._ref.size - self.offset

    def restart(self) -> None:
        """Forget what has come."""
        with self._disk_errors():
            self._file.truncate(0)
            self.offset = self._file.seek(0)

    def remove(self) -> None:
        """Forget that there was an upload."""
        with self._disk_errors():
            self._path.unlink()

    def write(self, data: bytes | bytearray) -> None:
        """Append what has come.

        Raises:
            BlobRefusedError: it is more than is missing; nothing was written.
            StorageFullError: the disk is full; a part may have been written.
            BlobError: the disk cannot be written.
        """
        if len(data) > self.missing:
            raise BlobRefusedError(
                f"More than the {self._ref.size:,} bytes that were announced come of blob {self._ref.sha256}."
            )
        with self._disk_errors():
            rest = memoryview(data)
            while rest:
                written = self._file.write(rest)
                self.offset += written
                rest = rest[written:]

    def keep(self) -> UploadState:
        """Make what has come safe; if that is all, verify it and put it into the store.

        Raises:
            BlobCorruptError: it is all, and not that blob; what has come is discarded.
            StorageFullError: the disk is full.
            BlobError: the disk cannot be written.
        """
        with self._disk_errors():
            os.fsync(self._file.fileno())
            if self.missing == 0:
                self._verify()
                self._store.adopt(self._path, self._ref)
                return UploadState(self.offset, complete=True)
            sync_directory(self._path.parent)
        return UploadState(self.offset, complete=False)

    def _verify(self) -> None:
        try:
            for _ in verified(read_chunks(self._path), self._ref):
                pass
        except BlobCorruptError:
            self._path.unlink()
            raise

    def _disk_errors(self) -> AbstractContextManager[None]:
        return disk_errors(f"Blob {self._ref.sha256} cannot be received in {self._path.parent}")


def _lock(path: Path) -> FileIO:
    while True:
        # Not through a link: whoever can make one there must not choose what is written to.
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
        file = os.fdopen(handle, "r+b", buffering=0)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if is_at(path, file.fileno(), follow_symlinks=False):
                return file
        except BlockingIOError as error:
            offset = os.fstat(file.fileno()).st_size
            file.close()
            raise UploadBusyError(path.name, offset) from error
        except BaseException:
            file.close()
            raise
        # Who had the lock before has finished: this is not the file of that name any more.
        file.close()
