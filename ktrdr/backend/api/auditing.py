"""Writing down who has changed what, before they are answered."""

from http import HTTPStatus

import structlog
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ktrdr.backend.audit import noting
from ktrdr.backend.records import OperationRecord
from ktrdr.backend.submitting import Witness
from ktrdr.backend.transactions import Transactions
from ktrdr.backend.wishes import Accepted
from ktrdr.backend.work import Work
from ktrdr.errors import KtrdrError

_READING = ("GET", "HEAD", "OPTIONS")

_log = structlog.get_logger()


class Audited:
    """Middleware that adds every write of somebody who is known to the audit log, also one that was refused.

    An operation that was made is in it already, by the transaction that made it: see `witness_of`. What
    nobody known has tried is not in it: whoever reaches the port could fill the disk.

    Args:
        app: what is wrapped.
        transactions: writes that end at the same moment share a commit.
    """

    def __init__(self, app: ASGIApp, transactions: Transactions) -> None:
        self._app = app
        self._transactions = transactions

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http" or scope["method"] in _READING:
            await self._app(scope, receive, send)
            return
        state = scope.setdefault("state", {})

        async def noted(message: Message) -> None:
            is_start = message["type"] == "http.response.start"
            if is_start and state.get("writes") and state.get("written_down") != message["status"]:
                await self._note(scope, message["status"])
            await send(message)

        try:
            await self._app(scope, receive, noted)
        except Exception:
            if state.get("writes"):
                state["problem"] = "defect"
                await self._note(scope, HTTPStatus.INTERNAL_SERVER_ERROR)
            raise

    async def _note(self, scope: Scope, status: int) -> None:
        state = scope["state"]
        route = route_of(scope)
        if route.endswith("/upload") and status != HTTPStatus.CREATED:
            return  # a part of a blob
        outcome = state.get("problem", "done")
        action = f"{scope['method']} {route}"
        subject = state.get("subject", scope["path"])
        try:
            await self._transactions.change(noting(state["principal"], action, subject, outcome, status))
        except KtrdrError as error:
            # What was asked for has happened; that it cannot be noted must not make it seem otherwise.
            _log.error(
                "audit entry not written",
                who=state["principal"],
                action=action,
                subject=subject,
                outcome=outcome,
                reason=str(error),
            )


def witness_of(request: Request) -> Witness:
    """Return what adds a request to the audit log with the operation that it makes, as one that was done."""
    action = f"{request.method} {route_of(request.scope)}"

    def witness(work: Work, operation: OperationRecord) -> None:
        noting(request.state.principal, action, operation.operation_id, "done", HTTPStatus.ACCEPTED)(work)

    return witness


def was_written_down(request: Request, accepted: Accepted) -> None:
    """Take note that the witness of a request has done its part, if the request has made an operation."""
    request.state.subject = accepted.operation.operation_id
    if accepted.created:
        request.state.written_down = HTTPStatus.ACCEPTED


def route_of(scope: Scope) -> str:
    """Return the path of the route that a request was for, as the API describes it."""
    path = getattr(scope.get("route"), "path", None)
    return path if isinstance(path, str) else "none"
