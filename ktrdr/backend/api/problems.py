"""Errors as clients see them: problem details (RFC 9457), each with a stable code and what to do about it."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field, JsonValue
from starlette.exceptions import HTTPException

from ktrdr.backend.problem_codes import CODES
from ktrdr.errors import KtrdrError, StrategyError
from ktrdr.errors import Problem as StrategyProblem

MEDIA_TYPE = "application/problem+json"

_RETRY_AFTER_S = 5
_WHAT_THERE_IS = "See what there is: GET /api/v1/docs"
_WHAT_IT_TAKES = "See what it takes: GET /api/v1/docs"
_SCHEMA = "#/components/schemas/ProblemDetails"


class ProblemInStrategy(BaseModel):
    """One thing that is wrong in a strategy."""

    path: str = Field(description="Dotted path of the key; empty for the whole file.")
    message: str
    line: int | None = None
    column: int | None = None
    suggestion: str | None = Field(None, description="The nearest valid name.")


class ProblemDetails(BaseModel):
    """What went wrong (RFC 9457)."""

    model_config = ConfigDict(
        extra="allow",
        json_schema_extra={
            "examples": [
                {
                    "type": "urn:ktrdr:problem:no-such-operation",
                    "title": "Not Found",
                    "status": 404,
                    "detail": "There is no operation 'op-1'.",
                    "code": "no-such-operation",
                }
            ]
        },
    )

    type: str
    title: str
    status: int
    detail: str = Field(description="What happened, in a sentence.")
    code: str = Field(description="Stable, for programs.")
    fix: str | None = Field(None, description="What to do about it, if there is something.")


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
        **more: JsonValue,
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
    status, code = next((status, code) for kind, status, code in CODES if isinstance(error, kind))
    headers = {"Retry-After": str(_RETRY_AFTER_S)} if status is HTTPStatus.SERVICE_UNAVAILABLE else None
    if isinstance(error, StrategyError):
        problems: list[JsonValue] = [in_strategy(problem).model_dump() for problem in error.problems]
        return Problem(
            status,
            code,
            error.message,
            fix="Correct what `problems` names.",
            problems=problems,
        )
    return Problem(status, code, error.message, fix=error.fix, headers=headers)


def in_strategy(problem: StrategyProblem) -> ProblemInStrategy:
    """Return one thing that is wrong in a strategy, as clients read it."""
    return ProblemInStrategy(
        path=problem.path,
        message=problem.message,
        line=problem.line,
        column=problem.column,
        suggestion=problem.suggestion,
    )


def answer_problems(app: FastAPI) -> None:
    """Make the application answer every error as a problem."""

    @app.exception_handler(Problem)
    async def _of_problem(request: Request, problem: Problem) -> JSONResponse:
        return _answered(request, problem)

    @app.exception_handler(KtrdrError)
    async def _of_error(request: Request, error: KtrdrError) -> JSONResponse:
        return _answered(request, problem_of(error))

    @app.exception_handler(HTTPException)
    async def _of_framework(request: Request, error: HTTPException) -> JSONResponse:
        if isinstance(error.__cause__, Problem):  # met while the framework was reading the body
            return _answered(request, error.__cause__)
        status = HTTPStatus(error.status_code)
        is_invalid = status is HTTPStatus.BAD_REQUEST
        code = "invalid-request" if is_invalid else status.phrase.lower().replace(" ", "-")
        detail, fix = str(error.detail), None
        if status is HTTPStatus.NOT_FOUND:
            detail, fix = "There is nothing at this address.", _WHAT_THERE_IS
        elif status is HTTPStatus.METHOD_NOT_ALLOWED:
            detail, fix = f"What is at this address does not take {request.method}.", _WHAT_THERE_IS
        return _answered(request, Problem(status, code, detail, fix=fix, headers=error.headers))

    @app.exception_handler(RequestValidationError)
    async def _of_request(request: Request, error: RequestValidationError) -> JSONResponse:
        return _answered(request, _invalid(error))

    @app.exception_handler(Exception)
    async def _of_defect(request: Request, error: Exception) -> JSONResponse:
        # The server logs it.
        detail = "The backend has failed at this; its log says why."
        return _answered(request, Problem(HTTPStatus.INTERNAL_SERVER_ERROR, "defect", detail))


def describe_problems(app: FastAPI) -> None:
    """Make the application's description say that problems come in a form of their own."""
    plain = app.openapi

    def described() -> dict[str, Any]:
        if app.openapi_schema is None:
            for path in plain()["paths"].values():
                for operation in path.values():
                    if (problem := operation["responses"].get("default")) is not None:
                        problem["content"] = {MEDIA_TYPE: {"schema": {"$ref": _SCHEMA}}}
        return plain()

    app.openapi = described  # type: ignore[method-assign]  # as FastAPI has it done


def _invalid(error: RequestValidationError) -> Problem:
    status, code = HTTPStatus.BAD_REQUEST, "invalid-request"
    if isinstance(error.body, bytes) and error.body:  # the framework has not even tried to read it
        fix = "Send it with Content-Type: application/json."
        return Problem(status, code, "The body is not said to be JSON.", fix=fix)
    found = error.errors()
    if found[0]["type"] == "json_invalid":
        where, why = found[0]["loc"][-1], found[0]["ctx"]["error"]
        return Problem(status, code, f"The body is not JSON: {why} (character {where}).", fix=_WHAT_IT_TAKES)
    detail = "; ".join(f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in found)
    return Problem(status, code, detail, fix=_WHAT_IT_TAKES)


def _answered(request: Request, problem: Problem) -> JSONResponse:
    request.state.problem = problem.code  # for the audit log
    return problem.response()
