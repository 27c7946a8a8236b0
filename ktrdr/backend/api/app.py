"""The application: its routers, and what they have in common."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import structlog
from fastapi import Depends, FastAPI
from pydantic import SecretStr
from starlette.concurrency import run_in_threadpool

from ktrdr import __version__
from ktrdr.backend.api.access import Access, bearer, refuse_other_origins
from ktrdr.backend.api.auditing import Audited
from ktrdr.backend.api.blobs import blobs_router
from ktrdr.backend.api.cleaning import cleaning_router
from ktrdr.backend.api.dead_letters import dead_letters_router
from ktrdr.backend.api.docs import docs_router
from ktrdr.backend.api.events import Tellings
from ktrdr.backend.api.fleet import fleet_router
from ktrdr.backend.api.health import HealthFirst, health_router, readiness_of
from ktrdr.backend.api.limits import BodyLimit, FewAtOnce, StalledSenders
from ktrdr.backend.api.logs import logs_router
from ktrdr.backend.api.metrics import HttpMetrics, metrics_registry, metrics_router
from ktrdr.backend.api.models import models_router
from ktrdr.backend.api.operations import operations_router
from ktrdr.backend.api.problems import ProblemDetails, answer_problems, describe_problems
from ktrdr.backend.api.rates import RateLimit
from ktrdr.backend.api.records import records_router
from ktrdr.backend.api.results import results_router
from ktrdr.backend.api.retrying import retrying_router
from ktrdr.backend.api.service import Service
from ktrdr.backend.api.strategies import strategies_router
from ktrdr.backend.api.tokens import tokens_router
from ktrdr.backend.api.trainings import trainings_router
from ktrdr.backend.tokens import AccessTokens
from ktrdr.backend.transactions import Transactions
from ktrdr.blobs.directory import DirectoryBlobStore
from ktrdr.blobs.uploads import ABANDONED_AFTER, Uploads
from ktrdr.clock import Clock, SystemClock
from ktrdr.errors import KtrdrError, SettingsError

MAX_BODY_BYTES = 1024 * 1024
_SLOW_AT_ONCE = 4
_MAX_BODIES_BYTES = 64 * MAX_BODY_BYTES
_IDLE_S = 20.0
_BODY_S = 600.0
_FAILURES_PER_S = 5.0

_SWEEP_INTERVAL_S = 3600.0

_log = structlog.get_logger()


def create_app(
    store: DirectoryBlobStore | None = None,
    *,
    token: SecretStr | None = None,
    max_blob_bytes: int = 0,
    unprotected: bool = False,
    service: Service | None = None,
    idle_s: float = _IDLE_S,
    clock: Clock | None = None,
) -> FastAPI:
    """Return the application.

    Args:
        store: whose blobs it serves and receives; None: none.
        token: what agents must show for blobs.
        max_blob_bytes: no blob may be larger.
        unprotected: serve without tokens, which `serving` then does for this machine alone.
        service: what everything but blobs is about; None: blobs and health alone.
        idle_s: longest pause in what a client sends.
        clock: for the collection of uploads that were abandoned.

    Raises:
        SettingsError: there is no token for the blobs, or it is too short.
    """
    if store is not None and token is None and not unprotected:
        raise SettingsError(
            "Blobs are not served without a token: whoever reaches the port could read and write them.",
            fix="Set KTRDR_BLOB_TOKEN, as `openssl rand -hex 32` prints it, here and for the agents.",
        )
    uploads = Uploads(store, limit_bytes=max_blob_bytes) if store is not None else None
    clock = clock or SystemClock()
    readiness = readiness_of(service)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        sweeping = asyncio.create_task(_sweep(uploads, clock)) if uploads is not None else None
        try:
            yield
        finally:
            if readiness is not None:
                await readiness.close()
            if sweeping is not None:
                sweeping.cancel()
                with suppress(asyncio.CancelledError):
                    await sweeping

    app = FastAPI(
        title="ktrdr",
        summary="Train neuro-fuzzy trading models, on this machine or on host agents.",
        version=__version__,
        lifespan=lifespan,
        # FastAPI's own pages load scripts from elsewhere; `docs_router` has one that does not.
        docs_url=None,
        redoc_url=None,
        openapi_url="/api/v1/openapi.json",
        responses={
            "default": {
                "model": ProblemDetails,
                "description": "What went wrong, and what to do about it.",
            }
        },
    )
    app.state.protected = not unprotected
    app.state.closing = asyncio.Event()
    describe_problems(app)
    if service is not None:
        _add_service(app, service, clock, unprotected=unprotected)
    app.add_middleware(StalledSenders, idle_s=idle_s, body_s=_BODY_S)
    answer_problems(app)
    app.add_middleware(HealthFirst, readiness=readiness)
    app.include_router(health_router(readiness))
    if uploads is not None:
        check = bearer(token) if token is not None else refuse_other_origins
        app.include_router(blobs_router(uploads), dependencies=[Depends(check)])
    return app


def _add_service(app: FastAPI, service: Service, clock: Clock, *, unprotected: bool) -> None:
    access = Access(
        None if unprotected else AccessTokens(service.store),
        rate=RateLimit(service.settings.api_rate_per_s),
        failures=RateLimit(_FAILURES_PER_S),
    )
    registry = metrics_registry(service.store)
    tellings = Tellings(service, app.state.closing)
    slow = FewAtOnce(_SLOW_AT_ONCE)
    transactions = Transactions(service.store, "http", clock=clock, offload=run_in_threadpool)
    app.add_middleware(
        BodyLimit,
        limit_bytes=MAX_BODY_BYTES,
        together_bytes=_MAX_BODIES_BYTES,
        except_below="/api/v1/blobs/",
    )
    app.add_middleware(Audited, transactions=transactions)
    app.add_middleware(HttpMetrics, registry=registry)
    for router in (
        trainings_router(service, access),
        operations_router(service, access, tellings),
        logs_router(service, access, app.state.closing),
        records_router(service, access, tellings, slow),
        retrying_router(service, access),
        results_router(service, access),
        models_router(service, access),
        strategies_router(service, access, slow),
        fleet_router(service, access),
        dead_letters_router(service, access),
        tokens_router(service, access),
        cleaning_router(service, access),
        metrics_router(registry, access),
        docs_router(),
    ):
        app.include_router(router)


async def _sweep(uploads: Uploads, clock: Clock) -> None:
    """Remove, now and then, what nobody has finished."""
    while True:
        before = clock.now() - ABANDONED_AFTER
        try:
            removed = await run_in_threadpool(uploads.remove_abandoned, before)
            removed += await run_in_threadpool(uploads.store.remove_abandoned, before)
        except KtrdrError as error:
            _log.warning("abandoned uploads not removed", reason=str(error))
        else:
            if removed:
                _log.info("abandoned uploads removed", files=removed)
        await clock.sleep(_SWEEP_INTERVAL_S)
