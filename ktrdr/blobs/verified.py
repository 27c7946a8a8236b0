"""Content on its way in or out, checked against its reference; shared by all stores."""

import errno
import hashlib
import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from ktrdr.errors import BlobCorruptError, BlobError, BlobRefusedError, StorageFullError
from ktrdr.events.references import BlobRef, FileDigest

CHUNK_BYTES = 1024 * 1024

_FULL = (errno.ENOSPC, errno.EDQUOT)


def check_size(ref: BlobRef | FileDigest, size: int) -> None:
    """Check the size that the store says a blob has.

    Raises:
        BlobCorruptError: the reference says another.
    """
    if size != ref.size:
        raise BlobCorruptError(f"Blob {ref.sha256} has {size:,} bytes in place of {ref.size:,}.")


def check_limit(ref: BlobRef, limit_bytes: int) -> None:
    """Check that content may be read into memory.

    Raises:
        BlobRefusedError: the reference says that it is larger.
    """
    if ref.size > limit_bytes:
        raise BlobRefusedError(
            f"Blob {ref.sha256} has {ref.size:,} bytes, over the limit of {limit_bytes:,}."
        )


def verified(chunks: Iterable[bytes], ref: BlobRef | FileDigest) -> Iterator[bytes]:
    """Pass content through and check it.

    Raises:
        BlobCorruptError: as soon as it is too long, or at its end when it is short or has another hash.
    """
    digest = hashlib.sha256()
    size = 0
    for chunk in chunks:
        size += len(chunk)
        if size > ref.size:
            raise BlobCorruptError(f"Blob {ref.sha256} has more than its {ref.size:,} bytes.")
        digest.update(chunk)
        yield chunk
    check_size(ref, size)
    if digest.hexdigest() != ref.sha256:
        raise BlobCorruptError(f"Blob {ref.sha256} has other content: its hash is {digest.hexdigest()}.")


def is_intact(path: Path, ref: BlobRef) -> bool:
    """Return whether there is a file with exactly that content; a link to one does not count."""
    try:
        if path.is_symlink() or path.stat().st_size != ref.size:
            return False
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == ref.sha256
    except OSError:
        return False


def receive(chunks: Iterable[bytes], ref: BlobRef, destination: Path) -> Path:
    """Write content to a file that appears only when it is whole, verified and on the disk.

    Raises:
        BlobCorruptError: it is not what the reference says.
        StorageFullError: the disk is full.
    """
    directory = destination.parent
    with disk_errors(f"{destination} cannot be written"):
        directory.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{destination.name}.", suffix=".part", dir=directory)
        try:
            with os.fdopen(handle, "wb") as file:
                for chunk in verified(chunks, ref):
                    file.write(chunk)
                file.flush()
                os.fsync(file.fileno())
            Path(name).replace(destination)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
        sync_directory(directory)
    return destination


def read_chunks(path: Path) -> Iterator[bytes]:
    """Yield the content of a file."""
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            yield chunk


def files_before(paths: Iterable[Path], before: datetime) -> list[tuple[Path, int]]:
    """Return those files that were not written since, with their sizes."""
    found = []
    for path in paths:
        try:
            stat = path.stat()
        except FileNotFoundError:
            continue  # it has just become whole
        if stat.st_mtime < before.timestamp():
            found.append((path, stat.st_size))
    return found


def sync_directory(directory: Path) -> None:
    """Make the names in a directory survive a loss of power."""
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def disk_errors(what: str) -> Iterator[None]:
    """Raise the operating system's errors as ours.

    Raises:
        StorageFullError: the disk, or the user's share of it, is full.
        BlobError: anything else.
    """
    try:
        yield
    except OSError as error:
        message = f"{what}: {error.strerror or error}."
        if error.errno in _FULL:
            raise StorageFullError(message, fix="Free some space and try again.") from error
        raise BlobError(message) from error
