"""How long a client may take to send a request, how large it may be, and how much is done at once."""

import asyncio
from collections.abc import Callable
from http import HTTPStatus
from typing import TypeVar

from starlette.concurrency import run_in_threadpool
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ktrdr.backend.api.problems import Problem

T = TypeVar("T")


class FewAtOnce:
    """Runs what takes long in threads, but never in all of those that every request needs.

    Args:
        count: of threads.
    """

    def __init__(self, count: int) -> None:
        self._free = asyncio.Semaphore(count)

    async def run(self, function: Callable[[], T]) -> T:
        """Return what the function returns, when it is its turn."""
        async with self._free:
            return await run_in_threadpool(function)


class StalledSenders:
    """Middleware that gives up on a client which does not go on sending the body of its request.

    Args:
        app: what is wrapped.
        idle_s: longest pause.
        body_s: longest time for the whole body.
    """

    def __init__(self, app: ASGIApp, *, idle_s: float, body_s: float) -> None:
        self._app = app
        self._idle_s = idle_s
        self._body_s = body_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._body_s
        more_body = True

        async def timed() -> Message:
            nonlocal more_body
            if not more_body:  # then it is the end of the connection that is waited for
                return await receive()
            try:
                async with asyncio.timeout(min(self._idle_s, deadline - loop.time())):
                    message = await receive()
            except TimeoutError:
                more_body = False
                raise Problem(
                    HTTPStatus.REQUEST_TIMEOUT,
                    "too-slow",
                    f"Nothing came for {self._idle_s:g} s, or not everything within {self._body_s:g} s.",
                    fix="Send the rest in smaller requests; what has come is kept.",
                    headers={"Connection": "close"},
                ) from None
            more_body = message.get("more_body", False)
            return message

        await self._app(scope, timed, send)


class BodyLimit:
    """Middleware that reads no more of a body than a request may have, and of all together than fits.

    A body is in memory before anybody is asked for a token: whoever reaches the port could fill it.

    Args:
        app: what is wrapped.
        limit_bytes: largest body.
        together_bytes: of all requests that are not answered yet.
        except_below: paths that begin so have limits of their own.
    """

    def __init__(self, app: ASGIApp, *, limit_bytes: int, together_bytes: int, except_below: str) -> None:
        self._app = app
        self._limit_bytes = limit_bytes
        self._together_bytes = together_bytes
        self._except_below = except_below
        self._held_bytes = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http" or scope["path"].startswith(self._except_below):
            await self._app(scope, receive, send)
            return
        received = 0

        async def limited() -> Message:
            nonlocal received
            message = await receive()
            size = len(message.get("body", b""))
            received += size
            self._held_bytes += size
            if received > self._limit_bytes:
                raise Problem(
                    HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
                    "body-too-large",
                    f"A request may bring {self._limit_bytes:,} bytes.",
                    fix="Send less; bars and models are not sent in requests.",
                    headers={"Connection": "close"},
                )
            if self._held_bytes > self._together_bytes:
                raise Problem(
                    HTTPStatus.SERVICE_UNAVAILABLE,
                    "too-much-at-once",
                    f"The requests of this moment bring more than {self._together_bytes:,} bytes.",
                    fix="Ask again in a moment.",
                    headers={"Connection": "close", "Retry-After": "1"},
                )
            return message

        try:
            await self._app(scope, limited, send)
        finally:
            self._held_bytes -= received
