"""The blob store as the rest of the system sees it: large content, named by its SHA-256."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol

from ktrdr.errors import BlobRefusedError
from ktrdr.events.references import BlobRef, Codec

_SHA256 = re.compile(r"[0-9a-f]{64}", re.ASCII)


@dataclass(frozen=True, slots=True)
class BlobEntry:
    """A blob that a store has."""

    sha256: str
    size: int
    """Bytes as stored."""
    modified: datetime
    """When it was last put, or put back, or copied aside; aware."""
    is_aside: bool = False
    """Whether it is on its way out."""


class BlobStore(Protocol):
    """Content-addressed storage. Calls block; asynchronous callers use a thread.

    Putting a blob twice is as good as once, so a caller that does not know whether a call succeeded repeats
    it.
    """

    def put(self, data: bytes, *, codec: Codec = Codec.NONE) -> BlobRef:
        """Store the content and return once it is safe.

        Of content that is there already the ``modified`` time becomes now, so that a collection of old blobs
        does not take what was just put; and if it is damaged, it is whole again.

        Args:
            data: what to store, after compression.
            codec: how it is compressed; only noted in the reference.

        Raises:
            StorageFullError: there is no space; nothing was stored.
            BlobRefusedError: the store takes nothing so large.
            BlobError: the store cannot take it.
        """

    def put_file(self, path: Path, *, codec: Codec = Codec.NONE) -> BlobRef:
        """Store the content of a file, without reading it into memory; otherwise as `put`.

        Raises:
            BlobCorruptError: the file was changed meanwhile; nothing was stored.
        """

    def get(self, ref: BlobRef, limit_bytes: int) -> bytes:
        """Return the content, whose size is checked before it is read and its hash after.

        Raises:
            BlobRefusedError: the reference is not to this store, or its size is over the limit.
            BlobMissingError: there is no such blob.
            BlobUnavailableError: the store is away, and whether it has that blob is not known.
            BlobCorruptError: the stored content is not what the reference says.
        """

    def stream(self, ref: BlobRef, limit_bytes: int) -> Iterator[bytes]:
        """Return the content in pieces, checked as by `get`: its hash is known at the end.

        So nothing may come of what has been read before the last piece.

        Raises:
            BlobError: as `get`, at any piece.
        """

    def fetch(self, ref: BlobRef, destination: Path) -> Path:
        """Write the content to a file and return its path.

        The file appears at once, whole, verified and safe; its directory is created. One that is there
        already and has the right content is left as it is, so that a directory of fetched files is a cache.

        Raises:
            BlobRefusedError: the reference is not to this store.
            BlobMissingError: there is no such blob.
            BlobCorruptError: the stored content is not what the reference says.
            StorageFullError: there is no space at the destination.
        """

    def exists(self, sha256: str) -> bool:
        """Return whether the store has that blob; its content is not checked.

        Raises:
            BlobUnavailableError: the store is away.
        """

    def close(self) -> None:
        """Let go of connections. Calls in progress and later ones may fail, so that nobody waits for them."""


class BlobInventory(BlobStore, Protocol):
    """A store as seen by who keeps house in it: what is there can be listed and removed.

    Whoever only has an account with the backend's endpoint sees a `BlobStore`, and cannot take anything away.
    """

    def delete(self, sha256: str) -> None:
        """Remove the blob, if it is there, whoever may need it; to collect, use `set_aside`."""

    def entries(self) -> Iterator[BlobEntry]:
        """Return all blobs, in no order; those put or deleted meanwhile may or may not be among them.

        One that was put again after it was set aside is there twice.
        """

    def set_aside(self, sha256: str, before: datetime) -> BlobEntry | None:
        """Take a blob out of the way that was not put since, and return it as it is then; else None.

        It can still be read. Whoever puts it at this very moment has it all the same: then it is not aside,
        or it is aside with a ``modified`` time of now. So what is aside and older than ``before`` can be
        discarded; what is younger has to lie, until it is known whether somebody needs it.

        Delivery: a process that is killed meanwhile leaves it where it was, aside, or in both places.
        """

    def restore(self, sha256: str) -> None:
        """Put back what is aside, if it is: it is as if it was just put."""

    def discard(self, sha256: str) -> None:
        """Remove what is aside, if it is."""

    def owner(self) -> str | None:
        """Return who knows what is needed here, and alone may collect; None: nobody has said so."""

    def claim(self, name: str) -> None:
        """Make this the owner, unless there is one."""


def blob_uri(sha256: str) -> str:
    """Return the reference that any store of an installation understands."""
    return f"blob:{sha256}"


def checked_sha256(sha256: str) -> str:
    """Return the hash if it is one: it becomes a part of paths and addresses.

    Raises:
        BlobRefusedError: it is something else.
    """
    if _SHA256.fullmatch(sha256) is None:
        raise BlobRefusedError(f"'{sha256[:80]}' is not a SHA-256.")
    return sha256


def referred_sha256(ref: BlobRef) -> str:
    """Return the hash that a reference names.

    Raises:
        BlobRefusedError: its URI is of another form than ``blob:<sha256>``, or names another hash.
    """
    if ref.uri != blob_uri(checked_sha256(ref.sha256)):
        raise BlobRefusedError(
            f"'{ref.uri[:80]}' is not a reference to the blob store that fits the hash {ref.sha256}."
        )
    return ref.sha256
