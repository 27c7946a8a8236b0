"""Errors as clients see them: problem details (RFC 9457), each with a stable code and what to do about it."""

from collections.abc import Mapping
from http import HTTPStatus

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from ktrdr.errors import (
    BlobCorruptError,
    BlobError,
    BlobMissingError,
    BlobRefusedError,
    KtrdrError,
    StorageFullError,
)

MEDIA_TYPE = "application/problem+json"

_STATUS: tuple[tuple[type[KtrdrError], HTTPStatus, str], ...] = (
    (StorageFullError, HTTPStatus.INSUFFICIENT_STORAGE, "storage-full"),
    (BlobMissingError, HTTPStatus.NOT_FOUND, "no-such-blob"),
    (BlobRefusedError, HTTPStatus.BAD_REQUEST, "refused"),
    (BlobCorruptError, HTTPStatus.UNPROCESSABLE_ENTITY, "wrong-content"),
    (BlobError, HTTPStatus.SERVICE_UNAVAILABLE, "store-unavailable"),
    (KtrdrError, HTTPStatus.INTERNAL_SERVER_ERROR, "failed"),
)


class Problem(Exception):  # noqa: N818  (it is the answer, and only on the way there an exception)
    """An answer that says what is wrong.

    Args:
        status: of the answer.
        code: stable, for programs: ``wrong-offset``.
        detail: one sentence for people.
        fix: what to do about it, if there is something.
        headers: of the answer.
        more: further members of the body.
    """

    def __init__(
        self,
        status: HTTPStatus,
        code: str,
        detail: str,
        *,
        fix: str | None = None,
        headers: Mapping[str, str] | None = None,
        **more: int | str,
    ) -> None:
        self.status = status
        self.code = code
        self.detail = detail
        self.fix = fix
        self.headers = headers
        self.more = more
        super().__init__(detail)

    def response(self) -> JSONResponse:
        """Return it as it is sent."""
        body = {
            "type": f"urn:ktrdr:problem:{self.code}",
            "title": self.status.phrase,
            "status": self.status.value,
            "detail": self.detail,
            "code": self.code,
            **({"fix": self.fix} if self.fix else {}),
            **self.more,
        }
        return JSONResponse(body, self.status, headers=self.headers, media_type=MEDIA_TYPE)


def problem_of(error: KtrdrError) -> Problem:
    """Return the answer to a request that failed with one of our errors."""
    status, code = next((status, code) for kind, status, code in _STATUS if isinstance(error, kind))
    return Problem(status, code, error.message, fix=error.fix)


def answer_problems(app: FastAPI) -> None:
    """Make the application answer every error as a problem."""

    @app.exception_handler(Problem)
    async def _of_problem(request: Request, problem: Problem) -> JSONResponse:
        return problem.response()

    @app.exception_handler(KtrdrError)
    async def _of_error(request: Request, error: KtrdrError) -> JSONResponse:
        return problem_of(error).response()

    @app.exception_handler(HTTPException)
    async def _of_framework(request: Request, error: HTTPException) -> JSONResponse:
        status = HTTPStatus(error.status_code)
        code = status.phrase.lower().replace(" ", "-")
        return Problem(status, code, str(error.detail), headers=error.headers).response()

    @app.exception_handler(RequestValidationError)
    async def _of_request(request: Request, error: RequestValidationError) -> JSONResponse:
        found = "; ".join(f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors())
        return Problem(HTTPStatus.BAD_REQUEST, "invalid-request", found).response()

    @app.exception_handler(Exception)
    async def _of_defect(request: Request, error: Exception) -> JSONResponse:
        # The server logs it.
        detail = "The backend has failed at this; its log says why."
        return Problem(HTTPStatus.INTERNAL_SERVER_ERROR, "defect", detail).response()
