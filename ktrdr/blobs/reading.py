"""Reading from a store that yields content in pieces, checked on its way; shared by the stores elsewhere."""

import io
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path

from ktrdr.blobs.store import referred_sha256
from ktrdr.blobs.verified import check_limit, is_intact, receive, verified
from ktrdr.events.references import BlobRef


class ChunkedReads(ABC):
    """The reading half of a `BlobStore`."""

    def get(self, ref: BlobRef, limit_bytes: int) -> bytes:
        """Return the content; see `BlobStore.get`."""
        data = io.BytesIO()
        for chunk in self.stream(ref, limit_bytes):
            data.write(chunk)
        return data.getvalue()

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

    @abstractmethod
    def _chunks(self, ref: BlobRef) -> Iterator[bytes]:
        """Yield the content as the store has it, unchecked."""
