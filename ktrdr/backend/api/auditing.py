"""Writing down who has changed what, before they are answered."""

from http import HTTPStatus

import structlog
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ktrdr.backend.audit import Witness, noting, witness_by
from ktrdr.backend.transactions import Transactions
from ktrdr.errors import KtrdrError

_READING = ("GET", "HEAD", "OPTIONS")

_log = structlog.get_logger()


class Audited:
    """Middleware that adds every write of somebody who is known to the audit log, also one that was refused.

    What has changed the database is in it already, by the same transaction: see `witness_of`. Blobs and
    dead letters come before their entries, as they are no part of any transaction. What nobody known has
    tried is not in it: whoever reaches the port could fill the disk.

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
        action = _action(scope)
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
    """Return what adds a request to the audit log, as one that was done, in the transaction that does it."""
    return witness_by(request.state.principal, _action(request.scope), _status_when_done(request))


def was_written_down(request: Request) -> None:
    """Take note that what the witness of a request has written is committed."""
    request.state.written_down = _status_when_done(request)


def route_of(scope: Scope) -> str:
    """Return the path of the route that a request was for, as the API describes it."""
    path = getattr(scope.get("route"), "path", None)
    return path if isinstance(path, str) else "none"


def _action(scope: Scope) -> str:
    return f"{scope['method']} {route_of(scope)}"


def _status_when_done(request: Request) -> int:
    status: int | None = request.scope["route"].status_code
    return HTTPStatus.OK if status is None else status
