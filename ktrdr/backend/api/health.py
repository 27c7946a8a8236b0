"""Whether the backend is there, and whether it can work."""

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Literal

from fastapi import APIRouter, Response
from pydantic import BaseModel
from starlette.types import ASGIApp, Receive, Scope, Send

from ktrdr.backend.api.service import Service
from ktrdr.backend.sharing import Shared
from ktrdr.backend.waiting import T
from ktrdr.errors import ResultsHeldUpError

_LIVE, _READY = "/health/live", "/health/ready"
_GOOD_FOR_S = 1.0
_ASKED_AGAIN_AFTER_S = 0.5


class Health(BaseModel):
    """Whether it is well; whoever asks an unwell one is answered by a problem."""

    status: Literal["ok"] = "ok"


class Readiness:
    """Whether a backend can work; who asks often is told what was so within the last second.

    It is asked in a thread of its own, that no training has to get through first.

    Args:
        ask: raises if it cannot.
        now: monotonic seconds.
    """

    def __init__(self, ask: Callable[[], object], *, now: Callable[[], float] = time.monotonic) -> None:
        self._ask = ask
        self._now = now
        self._thread: ThreadPoolExecutor | None = None
        self._asking: Shared[None] = Shared(self._offload)
        self._again: asyncio.Task[None] | None = None
        self._answered_at = float("-inf")
        """When the last question was put that was answered well."""

    @property
    def is_known(self) -> bool:
        """Whether it could within the last second."""
        return self._now() - self._answered_at < _GOOD_FOR_S

    async def check(self) -> None:
        """Return if it can, or could within the last second; raises what `ask` does otherwise."""
        if not self.is_known:
            await self._asking.of(None, self._find_out)
        elif self._now() - self._answered_at >= _ASKED_AGAIN_AFTER_S and self._again is None:
            self._again = asyncio.create_task(self._ask_again())

    async def close(self) -> None:
        """End its thread, until it is asked again: perhaps in another event loop."""
        if self._again is not None:
            self._again.cancel()
            await asyncio.gather(self._again, return_exceptions=True)
            self._again = None  # it may not even have begun
        self._asking = Shared(self._offload)
        if self._thread is not None:
            self._thread.shutdown(wait=False)
            self._thread = None

    async def _ask_again(self) -> None:
        try:
            await self._asking.of(None, self._find_out)
        except Exception:  # noqa: S110  # who asks a moment later is told
            pass
        finally:
            self._again = None

    def _find_out(self) -> None:
        began = self._now()
        try:
            self._ask()
        except BaseException:
            self._answered_at = float("-inf")
            raise
        self._answered_at = began

    async def _offload(self, function: Callable[[], T], /) -> T:
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, thread_name_prefix="readiness")
        return await asyncio.get_running_loop().run_in_executor(self._thread, function)


class HealthFirst:
    """Middleware that answers those who ask for nothing but health before anything else is done.

    Args:
        app: what is wrapped; it answers what is not known here.
        readiness: None: it is not asked for.
    """

    def __init__(self, app: ASGIApp, readiness: Readiness | None) -> None:
        self._app = app
        self._readiness = readiness
        self._ok = Response(Health().model_dump_json(), media_type="application/json")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] == "http" and scope["method"] == "GET" and await self._is_well(scope["path"]):
            await self._ok(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    async def _is_well(self, path: str) -> bool:
        if path == _READY and self._readiness is not None and self._readiness.is_known:
            await self._readiness.check()
            return True
        return path == _LIVE


def health_router(readiness: Readiness | None) -> APIRouter:
    """Return the routes, which ask for no token; without readiness only that of a process."""
    router = APIRouter(tags=["health"])

    @router.get(_LIVE, summary="Whether this process runs")
    async def live() -> Health:
        return Health()

    if readiness is not None:

        @router.get(_READY, summary="Whether it can work: the database answers, and results are taken")
        async def ready() -> Health:
            await readiness.check()
            return Health()

    return router


def readiness_of(service: Service | None) -> Readiness | None:
    """Return that of what is served."""
    if service is None:
        return None
    store, operations = service.store, service.operations

    def ask() -> None:
        store.agents()
        if (reason := operations.held_up_by) is not None:
            raise ResultsHeldUpError(f"Results are not taken, and wait. {reason}")

    return Readiness(ask)
