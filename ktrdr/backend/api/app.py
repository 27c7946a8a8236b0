"""The application: its routers, and what they have in common."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import timedelta

import structlog
from fastapi import Depends, FastAPI
from pydantic import SecretStr
from starlette.concurrency import run_in_threadpool

from ktrdr import __version__
from ktrdr.backend.api import health
from ktrdr.backend.api.access import bearer
from ktrdr.backend.api.blobs import blobs_router
from ktrdr.backend.api.limits import StalledSenders
from ktrdr.backend.api.problems import answer_problems
from ktrdr.blobs.directory import DirectoryBlobStore
from ktrdr.blobs.uploads import Uploads
from ktrdr.clock import Clock, SystemClock
from ktrdr.errors import KtrdrError, SettingsError

_IDLE_S = 20.0
_BODY_S = 600.0

_SWEEP_INTERVAL_S = 3600.0
_ABANDONED_AFTER = timedelta(days=1)

_log = structlog.get_logger()


def create_app(
    store: DirectoryBlobStore,
    *,
    token: SecretStr | None,
    max_blob_bytes: int,
    unprotected: bool = False,
    idle_s: float = _IDLE_S,
    clock: Clock | None = None,
) -> FastAPI:
    """Return the application.

    Args:
        store: whose blobs it serves and receives.
        token: what clients must show.
        max_blob_bytes: no blob may be larger.
        unprotected: serve without a token, which `serving` then does for this machine alone.
        idle_s: longest pause in what a client sends.
        clock: for the collection of uploads that were abandoned.

    Raises:
        SettingsError: there is no token, or it is too short.
    """
    if token is None and not unprotected:
        raise SettingsError(
            "Blobs are not served without a token: whoever reaches the port could read and write them.",
            fix="Set KTRDR_BLOB_TOKEN, as `openssl rand -hex 32` prints it, here and for the agents.",
        )
    uploads = Uploads(store, limit_bytes=max_blob_bytes)
    clock = clock or SystemClock()

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        sweeping = asyncio.create_task(_sweep(uploads, clock))
        try:
            yield
        finally:
            sweeping.cancel()
            with suppress(asyncio.CancelledError):
                await sweeping

    app = FastAPI(
        title="ktrdr",
        version=__version__,
        lifespan=lifespan,
        # Their pages load scripts from elsewhere.
        docs_url=None,
        redoc_url=None,
        openapi_url="/api/v1/openapi.json",
    )
    app.state.protected = token is not None
    app.add_middleware(StalledSenders, idle_s=idle_s, body_s=_BODY_S)
    answer_problems(app)
    app.include_router(health.router)
    access = [] if token is None else [Depends(bearer(token))]
    app.include_router(blobs_router(uploads), dependencies=access)
    return app


async def _sweep(uploads: Uploads, clock: Clock) -> None:
    """Remove, now and then, what nobody has finished."""
    while True:
        before = clock.now() - _ABANDONED_AFTER
        try:
            removed = await run_in_threadpool(uploads.remove_abandoned, before)
            removed += await run_in_threadpool(uploads.store.remove_abandoned, before)
        except KtrdrError as error:
            _log.warning("abandoned uploads not removed", reason=str(error))
        else:
            if removed:
                _log.info("abandoned uploads removed", files=removed)
        await clock.sleep(_SWEEP_INTERVAL_S)
