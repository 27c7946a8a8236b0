"""A blob store in a directory, on this machine's disk or one that several share."""

import errno
import hashlib
import os
import re
import secrets
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from functools import cached_property, partial
from pathlib import Path
from typing import BinaryIO

import obstore
from obstore.exceptions import BaseError
from obstore.store import LocalStore

from ktrdr.blobs.keys import OWNER, aside_key_of, entry_at, key_of, read_at_either
from ktrdr.blobs.store import BlobEntry, blob_uri, checked_sha256, referred_sha256
from ktrdr.blobs.verified import (
    CHUNK_BYTES,
    check_limit,
    check_size,
    disk_errors,
    files_before,
    is_intact,
    read_chunks,
    receive,
    sync_directory,
    verified,
)
from ktrdr.errors import BlobCorruptError, BlobMissingError, BlobUnavailableError
from ktrdr.events.references import BlobRef, Codec

_INCOMING = "incoming"
_OS_ERROR = re.compile(r"\(os error (\d+)\)")


class DirectoryBlobStore:
    """A `BlobInventory` of files named by hash: ``ab/cdef…``.

    obstore writes a file under another name and renames it, but does not flush it: after a loss of power a
    whole name may have half a content. So a blob is written to ``incoming/``, flushed, and only then given
    its name. What a killed process leaves in ``incoming/`` is never read; `remove_abandoned` clears it.

    What is set aside is renamed first, and its time read then. Whoever puts a blob renews its time first, and
    looks for it then. So of two who do so at once, either the one finds that it is young, or the other finds
    that it is gone and writes it anew.

    A directory that is missing or quite empty may be a share that is not mounted: what is not found there is
    not missing, and what was there once is not begun anew beside it. Whatever was put, something is left of
    it: the directories are never removed.
    """

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()
        self._was_there = False

    def prepare(self) -> None:
        """Make the directory, to write to it.

        Raises:
            BlobUnavailableError: it has been there before, and is away.
            BlobError: it cannot be made.
        """
        with _errors(f"{self.root} cannot be made"):
            self._prepare()

    def put(self, data: bytes, *, codec: Codec = Codec.NONE) -> BlobRef:
        """Store the content; see `BlobStore.put`."""
        ref = _reference(hashlib.sha256(data).hexdigest(), len(data), codec)
        self._keep(ref, lambda: data)
        return ref

    def put_file(self, path: Path, *, codec: Codec = Codec.NONE) -> BlobRef:
        """Store the content of a file; see `BlobStore.put_file`."""
        with disk_errors(f"{path} cannot be read"), path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            ref = _reference(sha256, file.tell(), codec)
        self._keep(ref, lambda: verified(read_chunks(path), ref))
        return ref

    def get(self, ref: BlobRef, limit_bytes: int) -> bytes:
        """Return the content; see `BlobStore.get`."""
        sha256 = referred_sha256(ref)
        check_limit(ref, limit_bytes)
        with self._reading(sha256):
            found = read_at_either(sha256, partial(obstore.get, self._objects))
            check_size(ref, found.meta["size"])
            data = found.bytes().to_bytes()
        if hashlib.sha256(data).hexdigest() != ref.sha256:
            raise BlobCorruptError(f"Blob {ref.sha256} has other content.")
        return data

    def stream(self, ref: BlobRef, limit_bytes: int) -> Iterator[bytes]:
        """Return the content in pieces; see `BlobStore.stream`."""
        referred_sha256(ref)
        check_limit(ref, limit_bytes)
        return verified(self._chunks(ref), ref)

    def fetch(self, ref: BlobRef, destination: Path) -> Path:
        """Write the content to a file; see `BlobStore.fetch`."""
        referred_sha256(ref)
        if is_intact(destination, ref):
            return destination
        return receive(self._chunks(ref), ref, destination)

    def exists(self, sha256: str) -> bool:
        """Return whether there is that blob; see `BlobStore.exists`."""
        try:
            with self._reading(checked_sha256(sha256)):
                read_at_either(sha256, partial(obstore.head, self._objects))
        except BlobMissingError:
            return False
        return True

    def close(self) -> None:
        """Do nothing: there are no connections."""

    def delete(self, sha256: str) -> None:
        """Remove the blob; see `BlobInventory.delete`."""
        with _errors(f"Blob {checked_sha256(sha256)} cannot be removed"):
            self._path(sha256).unlink(missing_ok=True)
        self.discard(sha256)

    def set_aside(self, sha256: str, before: datetime) -> BlobEntry | None:
        """Take a blob out of the way; see `BlobInventory.set_aside`."""
        path, aside = self._path(checked_sha256(sha256)), self._aside(sha256)
        with _errors(f"Blob {sha256} cannot be set aside in {self.root}"):
            self._prepare()
            aside.parent.mkdir(parents=True, exist_ok=True)
            try:
                if path.stat().st_mtime >= before.timestamp():
                    return None
                path.rename(aside)
                found = aside.stat()
            except FileNotFoundError:
                return None  # another collector was quicker
        modified = datetime.fromtimestamp(found.st_mtime, UTC)
        return BlobEntry(sha256, found.st_size, modified, is_aside=True)

    def restore(self, sha256: str) -> None:
        """Put back what is aside; see `BlobInventory.restore`."""
        path, aside = self._path(checked_sha256(sha256)), self._aside(sha256)
        with _errors(f"Blob {sha256} cannot be put back in {self.root}"):
            try:
                os.utime(aside)
                # In the place of one that was put meanwhile, perhaps: it has the same content.
                aside.rename(path)
            except FileNotFoundError:
                return  # another has put it back
            self._sync(path)

    def discard(self, sha256: str) -> None:
        """Remove what is aside; see `BlobInventory.discard`."""
        with _errors(f"Blob {checked_sha256(sha256)} cannot be discarded"):
            self._aside(sha256).unlink(missing_ok=True)

    def owner(self) -> str | None:
        """Return who collects here; see `BlobInventory.owner`."""
        with _errors(f"{self.root / OWNER} cannot be read"):
            try:
                return (self.root / OWNER).read_text("utf-8").strip()
            except FileNotFoundError:
                return None

    def claim(self, name: str) -> None:
        """Say who collects here; see `BlobInventory.claim`."""
        with _errors(f"{self.root / OWNER} cannot be written"):
            if self.owner() is None:
                self._prepare()
                obstore.put(self._objects, OWNER, name.encode())

    def entries(self) -> Iterator[BlobEntry]:
        """Return all blobs; see `BlobInventory.entries`."""
        if not self._is_there():
            return
        with _errors(f"{self.root} cannot be listed"):
            for batch in obstore.list(self._objects):
                for item in batch:
                    if entry := entry_at(item["path"], item["size"], item["last_modified"]):
                        yield entry

    def remove_abandoned(self, before: datetime) -> int:
        """Remove what killed processes left half-written before that time, and return the number of files.

        Args:
            before: aware; well before the start of any write that may still be going on.
        """
        removed = 0
        with disk_errors(f"{self.root / _INCOMING} cannot be cleared"):
            for path, _ in self.abandoned(before):
                path.unlink(missing_ok=True)
                removed += 1
        return removed

    def abandoned(self, before: datetime) -> list[tuple[Path, int]]:
        """Return what `remove_abandoned` would remove, and its sizes."""
        return files_before((self.root / _INCOMING).glob("*"), before)

    def renew(self, ref: BlobRef) -> bool:
        """Return whether the blob is there and intact; if so, its ``modified`` time is now, and it is safe.

        Raises:
            BlobRefusedError: the reference is not to this store.
            BlobError: the directory cannot be written.
        """
        path = self._path(referred_sha256(ref))
        with _errors(f"Blob {ref.sha256} cannot be renewed in {self.root}"):
            self._prepare()
            if not self._renew(path, ref):
                return False
            self._sync(path)
        return True

    def adopt(self, path: Path, ref: BlobRef) -> None:
        """Make a file of this disk the blob, and take it away from where it is.

        Args:
            path: to a file that is flushed, and whose content has been verified.
            ref: what it is.

        Raises:
            BlobRefusedError: the reference is not to this store.
            StorageFullError: the disk is full.
            BlobError: the directory cannot be written.
        """
        target = self._path(referred_sha256(ref))
        with _errors(f"Blob {ref.sha256} cannot be stored in {self.root}"):
            self._prepare()
            os.utime(path)
            target.parent.mkdir(parents=True, exist_ok=True)
            path.rename(target)
            self._sync(target)

    def open(self, sha256: str) -> BinaryIO:
        """Open the blob for reading; its content is not checked.

        Raises:
            BlobRefusedError: it is no hash.
            BlobMissingError: there is no such blob.
            BlobUnavailableError: the directory is away.
        """
        with self._reading(sha256):
            return read_at_either(checked_sha256(sha256), lambda key: (self.root / key).open("rb"))

    @cached_property
    def _objects(self) -> LocalStore:
        if not self.root.is_dir():
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(self.root))
        return LocalStore(self.root)

    def _prepare(self) -> None:
        if not self._is_there():
            if self._was_there:
                raise self._away()
            self.root.mkdir(parents=True, exist_ok=True)

    def _is_there(self) -> bool:
        with suppress(FileNotFoundError), os.scandir(self.root) as found:
            if next(found, None) is not None:
                self._was_there = True
                return True
        return False

    def _away(self) -> BlobUnavailableError:
        return BlobUnavailableError(
            f"The blob store {self.root} is away: the directory is not there, or is empty.",
            fix="Mount what it is on. If its content is gone for good, put any file there to say so: "
            f"touch {self.root / 'lost'}",
        )

    @contextmanager
    def _reading(self, sha256: str) -> Iterator[None]:
        with _errors(f"Blob {sha256} cannot be read"):
            try:
                yield
            except FileNotFoundError as error:
                if not self._is_there():
                    raise self._away() from error
                raise BlobMissingError(f"There is no blob {sha256}.") from error

    def _keep(self, ref: BlobRef, content: Callable[[], bytes | Iterable[bytes]]) -> None:
        """Make the content durable under its hash."""
        key = key_of(ref.sha256)
        path = self.root / key
        with _errors(f"Blob {ref.sha256} cannot be stored in {self.root}"):
            self._prepare()
            if not self._renew(path, ref):
                incoming = f"{_INCOMING}/{secrets.token_hex(8)}"
                try:
                    obstore.put(self._objects, incoming, content())
                    with (self.root / incoming).open("rb") as file:
                        os.fsync(file.fileno())
                    obstore.rename(self._objects, incoming, key)
                except BaseException:
                    (self.root / incoming).unlink(missing_ok=True)
                    raise
            # Also when another process has just renamed it, who may not have come this far.
            self._sync(path)

    def _sync(self, path: Path) -> None:
        sync_directory(path.parent)
        sync_directory(self.root)
        self._was_there = True

    def _renew(self, path: Path, ref: BlobRef) -> bool:
        """Return whether the blob is there and intact; if so, its time is now."""
        try:
            os.utime(path)
        except FileNotFoundError:
            return False
        return is_intact(path, ref)

    def _path(self, sha256: str) -> Path:
        return self.root / key_of(sha256)

    def _aside(self, sha256: str) -> Path:
        return self.root / aside_key_of(sha256)

    def _chunks(self, ref: BlobRef) -> Iterator[bytes]:
        with self._reading(ref.sha256):
            found = read_at_either(ref.sha256, partial(obstore.get, self._objects))
            check_size(ref, found.meta["size"])
            yield from found.stream(min_chunk_size=CHUNK_BYTES)


def _reference(sha256: str, size: int, codec: Codec) -> BlobRef:
    return BlobRef(uri=blob_uri(sha256), sha256=sha256, size=size, codec=codec)


@contextmanager
def _errors(what: str) -> Iterator[None]:
    """Raise obstore's errors and the operating system's as ours."""
    with disk_errors(what):
        try:
            yield
        except BaseError as error:
            # The number of the system's error is nowhere but in the text.
            number = _OS_ERROR.search(str(error))
            reason = str(error).partition("\n")[0]
            raise OSError(int(number[1]) if number else errno.EIO, reason) from error
