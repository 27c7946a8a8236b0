"""Sending a blob to the backend's endpoint in pieces, each acknowledged when it is on its disk."""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import BufferedIOBase

import httpx

from ktrdr.blobs.http_answers import LostConnectionError, OccupiedError, http_errors, raise_for
from ktrdr.blobs.patience import Patience
from ktrdr.errors import BlobCorruptError, BlobUnavailableError
from ktrdr.events.references import BlobRef

Content = Callable[[], BufferedIOBase]
"""Opens what is to be sent."""

_REQUEST_BYTES = 16 * 1024 * 1024
_PIECE_BYTES = 256 * 1024
_TRIES_WITH_WRONG_CONTENT = 3


@dataclass(frozen=True, slots=True)
class _State:
    """What the backend says that it has."""

    offset: int
    complete: bool


def upload(
    client: Callable[[], httpx.Client], path: str, ref: BlobRef, content: Content, patience: Patience
) -> None:
    """Send a blob, from where the last try left off, and return when the backend has it whole.

    Args:
        client: with the address and the token; asked for before each request, so that it can be closed.
        path: of the blob.
        ref: what is sent.
        content: opens it.
        patience: for lost connections, and a backend that is busy.

    Raises:
        BlobCorruptError: the content is not what the reference says, or the backend receives something else.
        BlobRefusedError: the backend takes nothing so large.
        StorageFullError: it has no space.
        BlobUnavailableError: it does not answer, or not to us.
    """
    sending = _Sending(client, f"{path}/upload", ref, patience)
    wrong = 0
    while True:
        try:
            sending.all_of(content)
        except LostConnectionError as error:
            patience.pause(error)
        except OccupiedError as error:
            sending.progressed_to(error.offset)
            patience.pause(error)
        except BlobCorruptError:
            # Either it was changed meanwhile, or what had come before was not this blob: that is discarded.
            _check(content, ref)
            wrong += 1
            if wrong == _TRIES_WITH_WRONG_CONTENT:
                raise
            sending.begin_anew()
        else:
            return


class _Sending:
    """One blob on its way."""

    def __init__(
        self, client: Callable[[], httpx.Client], path: str, ref: BlobRef, patience: Patience
    ) -> None:
        self._client = client
        self._path = path
        self._ref = ref
        self._patience = patience
        self._furthest = 0

    def all_of(self, content: Content) -> None:
        """Send what the backend has not."""
        state = self._request("POST", {}, None)
        if state.complete:
            return
        with content() as file:
            while not state.complete:
                size = min(_REQUEST_BYTES, self._ref.size - state.offset)
                headers = {"Upload-Offset": str(state.offset), "Content-Length": str(size)}
                file.seek(state.offset)
                before, state = state, self._request("PATCH", headers, _pieces(file, size, self._ref))
                if state.offset <= before.offset and not state.complete:
                    raise OccupiedError(f"The backend takes nothing more of blob {self._ref.sha256}.")

    def begin_anew(self) -> None:
        """Count progress from the beginning again."""
        self._furthest = 0

    def progressed_to(self, offset: int) -> None:
        """Note how much the backend has, whoever has sent it."""
        if offset > self._furthest:
            self._furthest = offset
            self._patience.progressed()

    def _request(self, method: str, headers: dict[str, str], body: Iterator[bytes] | None) -> _State:
        headers = {"Upload-Length": str(self._ref.size), **headers}
        client = self._client()
        with http_errors(str(client.base_url)):
            response = client.request(method, self._path, headers=headers, content=body)
        raise_for(response)
        try:
            answer = response.json()
            state = _State(int(answer["offset"]), bool(answer["complete"]))
            if not 0 <= state.offset <= self._ref.size:
                raise ValueError("it has more than there is")
        except (ValueError, TypeError, KeyError) as error:
            raise BlobUnavailableError(
                f"{client.base_url} gave an answer that no ktrdr backend gives.",
                fix="Set KTRDR_BLOB_STORE to the address of a ktrdr backend, as https://host:8420.",
            ) from error
        self.progressed_to(state.offset)
        return state


def _pieces(file: BufferedIOBase, size: int, ref: BlobRef) -> Iterator[bytes]:
    while size:
        piece = file.read(min(_PIECE_BYTES, size))
        if not piece:
            raise BlobCorruptError(f"What was to be sent as blob {ref.sha256} became shorter meanwhile.")
        size -= len(piece)
        yield piece


def _check(content: Content, ref: BlobRef) -> None:
    with content() as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    if sha256 != ref.sha256:
        raise BlobCorruptError(
            f"What was to be sent as blob {ref.sha256} was changed meanwhile: it is {sha256}."
        )
