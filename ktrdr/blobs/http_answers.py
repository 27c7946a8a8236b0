"""What the backend's blob endpoint answers, and what becomes of a lost connection, as our errors."""

from collections.abc import Iterator
from contextlib import contextmanager

import httpx

from ktrdr.errors import (
    BlobCorruptError,
    BlobMissingError,
    BlobRefusedError,
    BlobUnavailableError,
    KtrdrError,
    StorageFullError,
)

_LONGEST_DETAIL = 300

_BY_CODE: dict[str, type[KtrdrError]] = {
    "storage-full": StorageFullError,
    "no-such-blob": BlobMissingError,
    "blob-too-large": BlobRefusedError,
    "refused": BlobRefusedError,
    "wrong-content": BlobCorruptError,
}

_TOKEN_FIX = "Set KTRDR_BLOB_TOKEN to the same as at the backend."  # noqa: S105  (advice)
_ADDRESS_FIX = "Set KTRDR_BLOB_STORE to the address of a ktrdr backend, as https://host:8420."


class LostConnectionError(BlobUnavailableError):
    """The backend did not answer, or not to the end: trying again may help."""


class OccupiedError(BlobUnavailableError):
    """The backend asks to try again later."""

    def __init__(self, message: str, *, offset: int = 0) -> None:
        self.offset = offset
        """How much of a blob has come that someone else sends."""
        super().__init__(message)


def raise_for(response: httpx.Response) -> None:
    """Raise what an answer says, if it is an error; its body must have been read.

    Raises:
        OccupiedError: the backend is busy, or its store is.
        StorageFullError: it has no space.
        BlobMissingError: it has no such blob.
        BlobRefusedError: it takes nothing so large.
        BlobCorruptError: what was sent is not that blob.
        BlobUnavailableError: it refuses the token, or is something else than a ktrdr backend.
    """
    if response.is_success:
        return
    problem = _problem(response)
    code, detail = str(problem.get("code", "")), str(problem.get("detail", ""))[:_LONGEST_DETAIL]
    where = response.url.copy_with(path="/", query=None, fragment=None)
    message = f"{where} answered {response.status_code}" + (f": {detail}" if detail else ".")
    if kind := _BY_CODE.get(code):
        fix = problem.get("fix")
        raise kind(detail, fix=str(fix)[:_LONGEST_DETAIL] if fix else None)
    if response.status_code in (401, 403):
        raise BlobUnavailableError(message, fix=_TOKEN_FIX)
    if response.status_code in (408, 409, 425, 429) or response.status_code >= 500:
        offset = problem.get("offset")
        raise OccupiedError(message, offset=offset if isinstance(offset, int) else 0)
    raise BlobUnavailableError(message, fix=_ADDRESS_FIX)


def is_absent(response: httpx.Response) -> bool:
    """Return whether a ktrdr backend says that it has no such blob, in an answer without a body."""
    return response.status_code == httpx.codes.NOT_FOUND and _is_problem(response)


@contextmanager
def http_errors(url: str) -> Iterator[None]:
    """Raise httpx's errors as ours.

    Raises:
        LostConnectionError: the connection could not be made, or did not last.
        BlobUnavailableError: it is no HTTP that is spoken there, or its certificate is not trusted.
    """
    try:
        yield
    except httpx.HTTPError as error:
        reason = str(error) or type(error).__name__
        if "CERTIFICATE_VERIFY_FAILED" in reason:
            raise BlobUnavailableError(
                f"The certificate of {url} is not trusted: {reason}.",
                fix="Let SSL_CERT_FILE name the certificate of the authority that has signed it.",
            ) from error
        raise LostConnectionError(
            f"The blob store at {url} does not answer: {reason}.",
            fix="Start the backend, or set KTRDR_BLOB_STORE to its address.",
        ) from error
    except RuntimeError as error:
        if "closed" not in str(error):  # as httpx says when the client was closed between two requests
            raise
        raise LostConnectionError(f"The connection to {url} was closed.") from error


def _problem(response: httpx.Response) -> dict[str, object]:
    if not _is_problem(response):
        return {}
    try:
        body = response.json()
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}


def _is_problem(response: httpx.Response) -> bool:
    kind: str = response.headers.get("content-type", "")
    return kind.startswith("application/problem+json")
