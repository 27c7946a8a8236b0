"""The blob store of a backend elsewhere, by its HTTP endpoint: for agents that share no other with it."""

import hashlib
import io
import re
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
from pydantic import SecretStr

from ktrdr.blobs.http_answers import LostConnectionError, OccupiedError, http_errors, is_absent, raise_for
from ktrdr.blobs.http_upload import Content, upload
from ktrdr.blobs.patience import Patience
from ktrdr.blobs.reading import ChunkedReads
from ktrdr.blobs.store import blob_uri, checked_sha256
from ktrdr.blobs.verified import check_size, disk_errors
from ktrdr.errors import BlobUnavailableError
from ktrdr.events.references import BlobRef, Codec

_GIVE_UP_AFTER_S = 60.0
_CONTENT_RANGE = re.compile(r"bytes ([0-9]{1,18})-[0-9]{1,18}/([0-9]{1,18})", re.ASCII)
_TIMEOUT = httpx.Timeout(30.0, connect=5.0, read=60.0)


class HttpBlobStore(ChunkedReads):
    """A `BlobStore` that sends to the backend's endpoint, and goes on where a lost connection left off.

    A call tries again, with pauses, as long as it gets anywhere now and then. Several threads may use it.

    Args:
        url: of the backend, as ``https://host:8420``.
        token: what the backend asks for.
        give_up_after_s: a call that got no further for so long fails.
    """

    def __init__(
        self, url: str, token: SecretStr | None, *, give_up_after_s: float = _GIVE_UP_AFTER_S
    ) -> None:
        self.url = url.rstrip("/")
        self._token = token
        self._give_up_after_s = give_up_after_s
        self._opening = threading.Lock()
        self._closed = threading.Event()
        self._client: httpx.Client | None = None

    def put(self, data: bytes, *, codec: Codec = Codec.NONE) -> BlobRef:
        """Store the content; see `BlobStore.put`."""
        ref = _reference(hashlib.sha256(data).hexdigest(), len(data), codec)
        self._send(ref, lambda: io.BytesIO(data))
        return ref

    def put_file(self, path: Path, *, codec: Codec = Codec.NONE) -> BlobRef:
        """Store the content of a file; see `BlobStore.put_file`."""
        with disk_errors(f"{path} cannot be read"):
            with path.open("rb") as file:
                sha256 = hashlib.file_digest(file, "sha256").hexdigest()
                ref = _reference(sha256, file.tell(), codec)
            self._send(ref, lambda: path.open("rb"))
        return ref

    def exists(self, sha256: str) -> bool:
        """Return whether there is that blob; see `BlobStore.exists`."""
        path, patience = _path(checked_sha256(sha256)), self._patience()
        while True:
            try:
                with http_errors(self.url):
                    response = self._open().head(path)
                if is_absent(response):
                    return False
                raise_for(response)
            except (LostConnectionError, OccupiedError) as error:
                patience.pause(error)
            else:
                return True

    def close(self) -> None:
        """Close its connections; see `BlobStore.close`."""
        with self._opening:
            self._closed.set()
            if self._client is not None:
                self._client.close()

    def _open(self) -> httpx.Client:
        with self._opening:
            if self._closed.is_set():
                raise BlobUnavailableError(f"The blob store at {self.url} was closed.")
            if self._client is None:
                headers = {"Accept-Encoding": "identity"}
                if self._token is not None:
                    headers["Authorization"] = f"Bearer {self._token.get_secret_value()}"
                self._client = httpx.Client(base_url=self.url, headers=headers, timeout=_TIMEOUT)
            return self._client

    def _patience(self) -> Patience:
        return Patience(self._give_up_after_s, sleep=self._closed.wait)

    def _send(self, ref: BlobRef, content: Content) -> None:
        upload(self._open, _path(ref.sha256), ref, content, self._patience())

    def _chunks(self, ref: BlobRef) -> Iterator[bytes]:
        """Yield the content, over as many connections as it takes."""
        offset, patience = 0, self._patience()
        while True:
            try:
                for chunk in self._rest(ref, offset):
                    offset += len(chunk)
                    patience.progressed()
                    yield chunk
            except (LostConnectionError, OccupiedError) as error:
                if offset < ref.size:
                    patience.pause(error)
                    continue
            return

    def _rest(self, ref: BlobRef, offset: int) -> Iterator[bytes]:
        headers = {"Range": f"bytes={offset}-"} if offset else {}
        with (
            http_errors(self.url),
            self._open().stream("GET", _path(ref.sha256), headers=headers) as response,
        ):
            if not response.is_success:
                response.read()
                raise_for(response)
            start, size = _place(response)
            check_size(ref, size)
            if start != offset:
                raise BlobUnavailableError(
                    f"{self.url} sends from {start:,} on what was asked for from {offset:,}."
                )
            yield from response.iter_raw()


def _reference(sha256: str, size: int, codec: Codec) -> BlobRef:
    return BlobRef(uri=blob_uri(sha256), sha256=sha256, size=size, codec=codec)


def _path(sha256: str) -> str:
    return f"/api/v1/blobs/{sha256}"


def _place(response: httpx.Response) -> tuple[int, int]:
    """Return where an answer begins, and the size of the whole blob."""
    if match := _CONTENT_RANGE.fullmatch(response.headers.get("content-range", "")):
        return int(match[1]), int(match[2])
    return 0, int(response.headers.get("content-length", -1))
