"""A blob store in a bucket: S3 and what is compatible with it, Google Cloud Storage, Azure."""

import hashlib
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import obstore
from obstore.exceptions import BaseError, PermissionDeniedError, UnauthenticatedError

from ktrdr.blobs.keys import OWNER, aside_key_of, entry_at, key_of, read_at_either
from ktrdr.blobs.reading import ChunkedReads
from ktrdr.blobs.store import BlobEntry, blob_uri, checked_sha256
from ktrdr.blobs.verified import (
    CHUNK_BYTES,
    check_size,
    disk_errors,
    read_chunks,
    verified,
)
from ktrdr.errors import BlobMissingError, BlobUnavailableError
from ktrdr.events.references import BlobRef, Codec

if TYPE_CHECKING:
    from obstore.store import ObjectStore

_PART_BYTES = 8 * 1024 * 1024
_PARTS_AT_ONCE = 3
_CODE = re.compile(r"<Code>([A-Za-z]{1,80})</Code>")
_DENIED = re.compile(r"status code: 40[13]\b|[Cc]redential")


class ObjectBlobStore(ChunkedReads):
    """A `BlobInventory` of objects named by hash: ``ab/cdef…``.

    Content that is there already is sent again: S3 refuses to copy an object onto itself, so nothing else
    makes it young; and whether it is still whole would take as long to find out. An object is replaced in one
    step, so that whoever reads it meanwhile gets the one or the other, which are equal.

    What is larger than one part is sent in parts, of which three are in memory; if that fails the parts are
    removed. If this process is killed they stay, unseen: let a rule of the bucket abort incomplete uploads.

    What is set aside is copied and then removed, which is not one step: whoever puts it in between is left
    with the copy. So a copy is read in place of what is missing, and lies until it is known who needs it.

    Args:
        objects: the bucket, with a prefix for this installation.
        name: of the bucket, as people know it: ``s3://bucket/prefix``.
    """

    def __init__(self, objects: "ObjectStore", name: str) -> None:
        self.name = name
        self._objects = objects
        self._closed = threading.Event()

    def put(self, data: bytes, *, codec: Codec = Codec.NONE) -> BlobRef:
        """Store the content; see `BlobStore.put`."""
        ref = _reference(hashlib.sha256(data).hexdigest(), len(data), codec)
        with self._errors(f"Blob {ref.sha256} cannot be stored"):
            self._put(ref, data)
        return ref

    def put_file(self, path: Path, *, codec: Codec = Codec.NONE) -> BlobRef:
        """Store the content of a file; see `BlobStore.put_file`."""
        what = f"{path} cannot be read"
        with disk_errors(what), path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            ref = _reference(sha256, file.tell(), codec)

        def content() -> Iterator[bytes]:
            with disk_errors(what):
                yield from self._while_open(verified(read_chunks(path), ref))

        with self._errors(f"Blob {ref.sha256} cannot be stored"):
            self._put(ref, b"".join(content()) if ref.size <= _PART_BYTES else content())
        return ref

    def exists(self, sha256: str) -> bool:
        """Return whether there is that blob; see `BlobStore.exists`."""
        try:
            with self._reading(checked_sha256(sha256)):
                read_at_either(sha256, partial(obstore.head, self._objects))
        except BlobMissingError:
            return False
        return True

    def close(self) -> None:
        """End what is in progress; see `BlobStore.close`."""
        self._closed.set()

    def delete(self, sha256: str) -> None:
        """Remove the blob; see `BlobInventory.delete`."""
        with self._errors(f"Blob {checked_sha256(sha256)} cannot be removed"):
            self._delete(key_of(sha256))
            self._delete(aside_key_of(sha256))

    def set_aside(self, sha256: str, before: datetime) -> BlobEntry | None:
        """Take a blob out of the way; see `BlobInventory.set_aside`."""
        key, aside = key_of(checked_sha256(sha256)), aside_key_of(sha256)
        with self._errors(f"Blob {sha256} cannot be set aside"):
            try:
                if obstore.head(self._objects, key)["last_modified"] >= before:
                    return None
                obstore.copy(self._objects, key, aside)
            except FileNotFoundError:
                return None  # another collector was quicker
            self._delete(key)
            found = obstore.head(self._objects, aside)
        return BlobEntry(sha256, found["size"], found["last_modified"], is_aside=True)

    def restore(self, sha256: str) -> None:
        """Put back what is aside; see `BlobInventory.restore`."""
        aside = aside_key_of(checked_sha256(sha256))
        with self._errors(f"Blob {sha256} cannot be put back"):
            with suppress(FileNotFoundError):
                obstore.copy(self._objects, aside, key_of(sha256))
            self._delete(aside)

    def discard(self, sha256: str) -> None:
        """Remove what is aside; see `BlobInventory.discard`."""
        with self._errors(f"Blob {checked_sha256(sha256)} cannot be discarded"):
            self._delete(aside_key_of(sha256))

    def owner(self) -> str | None:
        """Return who collects here; see `BlobInventory.owner`."""
        with self._errors("Its owner cannot be read"):
            try:
                return bytes(obstore.get(self._objects, OWNER).bytes()).decode("utf-8", "replace").strip()
            except FileNotFoundError:
                obstore.list(self._objects, prefix=OWNER).collect()  # or there is no bucket
                return None

    def claim(self, name: str) -> None:
        """Say who collects here; see `BlobInventory.claim`."""
        if self.owner() is None:
            with self._errors("Its owner cannot be written"):
                obstore.put(self._objects, OWNER, name.encode())

    def entries(self) -> Iterator[BlobEntry]:
        """Return all blobs; see `BlobInventory.entries`."""
        with self._errors("It cannot be listed"):
            for batch in obstore.list(self._objects):
                for item in batch:
                    if entry := entry_at(item["path"], item["size"], item["last_modified"]):
                        yield entry

    def _delete(self, key: str) -> None:
        try:
            obstore.delete(self._objects, key)
        except FileNotFoundError:
            # A bucket that is missing looks the same; listing tells them apart.
            obstore.list(self._objects, prefix=key).collect()

    def _put(self, ref: BlobRef, content: bytes | Iterator[bytes]) -> None:
        obstore.put(
            self._objects,
            key_of(ref.sha256),
            content,
            use_multipart=ref.size > _PART_BYTES,
            chunk_size=_PART_BYTES,
            max_concurrency=_PARTS_AT_ONCE,
        )

    def _chunks(self, ref: BlobRef) -> Iterator[bytes]:
        """Yield the content; obstore goes on by itself after a lost connection."""
        with self._reading(ref.sha256):
            found = read_at_either(ref.sha256, partial(obstore.get, self._objects))
            check_size(ref, found.meta["size"])
            yield from self._while_open(map(bytes, found.stream(min_chunk_size=CHUNK_BYTES)))

    def _while_open(self, chunks: Iterator[bytes]) -> Iterator[bytes]:
        for chunk in chunks:
            if self._closed.is_set():
                raise BlobUnavailableError(f"The blob store {self.name} was closed.")
            yield chunk

    @contextmanager
    def _reading(self, sha256: str) -> Iterator[None]:
        with self._errors(f"Blob {sha256} cannot be read"):
            try:
                yield
            except FileNotFoundError as error:
                # A bucket that is missing looks the same; listing tells them apart.
                obstore.list(self._objects, prefix=key_of(sha256)).collect()
                raise BlobMissingError(f"There is no blob {sha256} in {self.name}.") from error

    @contextmanager
    def _errors(self, what: str) -> Iterator[None]:
        """Raise obstore's errors as ours: whatever it is, the store is not usable as it is.

        Raises:
            BlobUnavailableError: says what to do.
        """
        try:
            yield
        except (BaseError, FileNotFoundError) as error:
            reason, fix = _explained(error)
            raise BlobUnavailableError(f"{what} ({self.name}): {reason}.", fix=fix) from error


def _explained(error: BaseError | FileNotFoundError) -> tuple[str, str]:
    """Return what is wrong, and what to do about it, from an error whose text is for programmers."""
    text = str(error).partition("\n\nDebug source")[0]
    code = match[1] if (match := _CODE.search(text)) else ""
    if isinstance(error, FileNotFoundError) or code in ("NoSuchBucket", "ContainerNotFound"):
        return "there is no such bucket", "Create the bucket, or correct KTRDR_BLOB_STORE."
    if isinstance(error, (PermissionDeniedError, UnauthenticatedError)) or _DENIED.search(text):
        return (
            f"access was denied ({code})" if code else "access was denied, or there are no credentials",
            "Set the credentials (AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY for S3), and let them list the "
            "bucket and get, put and delete objects in it.",
        )
    if code:
        return f"it answered {code}", "See what its documentation says of that."
    return (
        text.rpartition(" - ")[2].strip().rstrip(".") or "it does not answer",
        "Check that it can be reached from here (AWS_ENDPOINT_URL, AWS_REGION, KTRDR_BLOB_STORE).",
    )


def _reference(sha256: str, size: int, codec: Codec) -> BlobRef:
    return BlobRef(uri=blob_uri(sha256), sha256=sha256, size=size, codec=codec)
