"""Blobs over HTTP, for agents that share no store with the backend.

::

    HEAD  /api/v1/blobs/{sha256}           is it there, and how large
    GET   /api/v1/blobs/{sha256}           its content, or the part that Range names
    POST  /api/v1/blobs/{sha256}/upload    begin or go on: Upload-Length → {"offset", "complete"}
    PATCH /api/v1/blobs/{sha256}/upload    the bytes from Upload-Offset on → the same; 201 when it is whole

A blob is in the store only when all of it has come and has the hash that it is named by. What has come of it
stays: after a lost connection, or a restart of either side, ``POST`` says where to go on.
"""

import os
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from typing import Annotated, BinaryIO

import structlog
from fastapi import APIRouter, Header, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse
from pydantic import BaseModel
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from ktrdr.backend.api.problems import Problem
from ktrdr.blobs.uploads import Upload, UploadBusyError, Uploads, UploadState, WrongOffsetError
from ktrdr.blobs.verified import CHUNK_BYTES
from ktrdr.errors import BlobRefusedError

MAX_BODY_BYTES = 64 * 1024 * 1024
"""Of one request: what is lost at worst, and sent again, when this machine loses its power."""

_RANGE = re.compile(r"bytes=(?!-$)([0-9]{0,18})-([0-9]{0,18})", re.ASCII)

_log = structlog.get_logger()

Length = Annotated[int, Header(alias="Upload-Length", ge=0, lt=2**63)]
Offset = Annotated[int, Header(alias="Upload-Offset", ge=0, lt=2**63)]


class UploadProgress(BaseModel):
    """How much of a blob has come."""

    offset: int
    """Bytes that need not be sent again."""
    complete: bool
    """Whether the blob is in the store."""


def blobs_router(uploads: Uploads) -> APIRouter:
    """Return the routes for the store of these uploads."""
    router = APIRouter(prefix="/api/v1/blobs", tags=["blobs"])

    @router.head("/{sha256}")
    async def head(sha256: str) -> Response:
        file = await run_in_threadpool(uploads.store.open, sha256)
        with file:
            return Response(headers=_headers(sha256, _size(file)), media_type="application/octet-stream")

    @router.get("/{sha256}", response_class=StreamingResponse)
    async def get(sha256: str, request: Request) -> Response:
        file = await run_in_threadpool(uploads.store.open, sha256)
        return FileSlice(file, sha256, request.headers.get("range"))

    @router.post("/{sha256}/upload", response_model=UploadProgress)
    async def begin(sha256: str, length: Length) -> JSONResponse:
        with _upload_problems(length, uploads):
            state = await run_in_threadpool(uploads.begin, sha256, length)
        return _answer(state, HTTPStatus.OK)

    @router.patch("/{sha256}/upload", response_model=UploadProgress)
    async def append(sha256: str, request: Request, offset: Offset, length: Length) -> JSONResponse:
        with _upload_problems(length, uploads):
            upload = await run_in_threadpool(uploads.open, sha256, length, offset)
        try:
            _check_announced(request, upload.missing)
            try:
                await _receive(request, upload)
            except ClientDisconnect:
                _log.info("upload interrupted", sha256=sha256, bytes=upload.offset, of=length)
            state = await run_in_threadpool(upload.keep)
        finally:
            upload.close()
        if state.complete:
            _log.info("blob received", sha256=sha256, bytes=length)
        return _answer(state, HTTPStatus.CREATED if state.complete else HTTPStatus.OK)

    return router


class FileSlice(StreamingResponse):
    """The content of a blob, or the one range that was asked for.

    Args:
        file: is closed at the end.
        sha256: of the blob.
        asked: the header ``Range``; another form than one range of bytes is ignored, as if it were not there.
    """

    def __init__(self, file: BinaryIO, sha256: str, asked: str | None) -> None:
        self._file = file
        size = _size(file)
        headers, status = _headers(sha256, size), HTTPStatus.OK
        start, end = 0, size
        if match := _RANGE.fullmatch(asked or ""):
            try:
                start, end = _range(match[1], match[2], size)
            except Problem:
                file.close()
                raise
            headers["Content-Length"] = str(end - start)
            headers["Content-Range"] = f"bytes {start}-{end - 1}/{size}"
            status = HTTPStatus.PARTIAL_CONTENT
        super().__init__(
            self._content(start, end), status, headers=headers, media_type="application/octet-stream"
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        with self._file:
            await super().__call__(scope, receive, send)

    async def _content(self, start: int, end: int) -> AsyncIterator[bytes]:
        await run_in_threadpool(self._file.seek, start)
        while start < end:
            chunk = await run_in_threadpool(self._file.read, min(CHUNK_BYTES, end - start))
            if not chunk:
                return  # it became shorter: the connection ends before its time, and the client finds out
            start += len(chunk)
            yield chunk


def _range(first: str, last: str, size: int) -> tuple[int, int]:
    """Return the first byte and the one after the last; without ``first`` it is the last so many bytes."""
    if not first:
        start, end = max(size - int(last), 0), size
    else:
        start, end = int(first), min(int(last) + 1, size) if last else size
    if start >= end:
        raise Problem(
            HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE,
            "no-such-range",
            f"The blob has {size:,} bytes.",
            headers={"Content-Range": f"bytes */{size}"},
        )
    return start, end


def _headers(sha256: str, size: int) -> dict[str, str]:
    return {"Content-Length": str(size), "ETag": f'"{sha256}"', "Accept-Ranges": "bytes"}


def _size(file: BinaryIO) -> int:
    return os.fstat(file.fileno()).st_size


def _answer(state: UploadState, status: HTTPStatus) -> JSONResponse:
    body = UploadProgress(offset=state.offset, complete=state.complete)
    return JSONResponse(body.model_dump(), status, headers={"Upload-Offset": str(state.offset)})


def _check_announced(request: Request, missing: int) -> None:
    """Check the size of a body by what its header says, before any of it is read."""
    announced = int(request.headers.get("content-length", 0))
    if announced > MAX_BODY_BYTES:
        raise _body_too_large()
    if announced > missing:
        raise Problem(
            HTTPStatus.BAD_REQUEST,
            "longer-than-announced",
            f"The body has {announced:,} bytes, and only {missing:,} are missing by its Upload-Length.",
        )


def _body_too_large() -> Problem:
    return Problem(
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        "body-too-large",
        f"A request may bring {MAX_BODY_BYTES:,} bytes.",
        fix="Send the blob in several requests.",
    )


@contextmanager
def _upload_problems(length: int, uploads: Uploads) -> Iterator[None]:
    """Answer with what only an upload can meet."""
    try:
        yield
    except (WrongOffsetError, UploadBusyError) as error:
        raise Problem(
            HTTPStatus.CONFLICT,
            "busy" if isinstance(error, UploadBusyError) else "wrong-offset",
            error.message,
            fix=error.fix,
            headers={"Upload-Offset": str(error.offset)},
            offset=error.offset,
        ) from error
    except BlobRefusedError as error:
        if length <= uploads.limit_bytes:
            raise
        raise Problem(
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "blob-too-large", error.message, fix=error.fix
        ) from error


async def _receive(request: Request, upload: Upload) -> None:
    """Write the body, and what has come of it when it ends too early."""
    waiting = bytearray()
    received = 0
    try:
        async for chunk in request.stream():
            received += len(chunk)
            if received > MAX_BODY_BYTES:
                raise _body_too_large()
            waiting += chunk
            if len(waiting) >= CHUNK_BYTES:
                full, waiting = waiting, bytearray()
                await run_in_threadpool(upload.write, full)
    finally:
        await run_in_threadpool(upload.write, waiting)
