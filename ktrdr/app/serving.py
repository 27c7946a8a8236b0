"""`ktrdr serve`: the backend of host agents and of an agent in this process, and its HTTP endpoint."""

import asyncio
import socket
from collections.abc import AsyncIterator, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager, closing, nullcontext
from dataclasses import dataclass

import structlog

from host_agent.waiting import first_of
from ktrdr.app.backends import Backends
from ktrdr.app.cleaning import cleaner
from ktrdr.app.collecting import keep_collecting
from ktrdr.app.connecting import broker_user, connect_to_broker
from ktrdr.app.embedded import Embedded, in_process, render_report
from ktrdr.app.operating import dead_letter_office
from ktrdr.app.trainings import Trainings
from ktrdr.backend.api.app import create_app
from ktrdr.backend.api.server import certificate_of, listen, refuse_strangers, serving
from ktrdr.backend.api.service import Service
from ktrdr.backend.falling_back import Refuge
from ktrdr.backend.instances import BROKER_OWNER
from ktrdr.backend.service import Backend
from ktrdr.backend.store import OperationStore
from ktrdr.blobs.directory import DirectoryBlobStore
from ktrdr.blobs.opening import open_blob_inventory
from ktrdr.blobs.store import BlobStore
from ktrdr.clock import Clock, SystemClock
from ktrdr.ids import IdFactory, RandomIds
from ktrdr.settings import Settings

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Served:
    """A backend at work, for an agent in this process and for host agents."""

    settings: Settings
    store: OperationStore
    blobs: BlobStore
    backends: Backends
    local: Backend
    hosts: Backend | None
    """None if no broker is named."""
    trainings: Trainings
    address: str
    """URL of the HTTP endpoint."""


@asynccontextmanager
async def served(
    settings: Settings, *, clock: Clock | None = None, ids: IdFactory | None = None
) -> AsyncIterator[Served]:
    """Run a backend as long as the block runs; there may be any number on each database.

    Without a broker it trains in this process alone. With one it starts also while the broker is away, and
    goes on when it is back.

    Raises:
        SettingsError: a setting is wrong.
        DatabaseUnavailableError: the database cannot be used.
    """
    # What cannot be served takes nothing over that another would go on with.
    certificate_of(settings)
    refuse_strangers(settings.listen_address[0], protected=not settings.insecure)
    clock, ids = clock or SystemClock(), ids or RandomIds()
    async with AsyncExitStack() as stack:
        listener = stack.enter_context(closing(await listen(*settings.listen_address)))
        store = stack.enter_context(await asyncio.to_thread(OperationStore.open, settings))
        blobs = stack.enter_context(closing(open_blob_inventory(settings)))
        # Its runner is started with its first training: it may never have one.
        local = await stack.enter_async_context(
            in_process(
                settings, blobs=blobs, open_store=lambda: nullcontext(store), clock=clock, ids=ids, warm=False
            )
        )
        hosts = await _for_hosts(local, stack, clock=clock, ids=ids)
        await local.start()
        await stack.enter_async_context(_beside(keep_collecting(settings, store, blobs, clock=clock)))
        trainings = Trainings(settings, store, blobs=blobs, local=local.backend, hosts=hosts, ids=ids)
        backends = Backends(store, local.backend, hosts)
        letters = dead_letter_office(settings, local.bus)
        service = Service(settings, store, backends, trainings, letters, cleaner(settings))
        address = await _endpoint(service, blobs, listener, stack)
        _log.info(
            "serving",
            http=address,
            hosts=hosts is not None,
            blobs=settings.blob_store or str(settings.blobs_dir),
        )
        yield Served(settings, store, blobs, backends, local.backend, hosts, trainings, address)


async def serve_until(settings: Settings, stop: asyncio.Event) -> None:
    """Serve until the event is set; raises as `served` does, and what brought a backend down."""
    async with served(settings) as app:
        await first_of(stop.wait(), app.backends.wait_until_ended())
        _log.info("stopping")


@asynccontextmanager
async def _beside(work: Coroutine[None, None, None]) -> AsyncIterator[None]:
    """Have something done as long as the block runs."""
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _for_hosts(
    local: Embedded, stack: AsyncExitStack, *, clock: Clock, ids: IdFactory
) -> Backend | None:
    """Start the backend of the host agents, if a broker is named."""
    settings = local.settings
    if settings.broker_url is None:
        return None
    bus = connect_to_broker(settings, f"backend@{socket.gethostname()}")
    stack.push_async_callback(bus.close)
    backend = Backend(
        settings,
        bus=bus,
        store=local.store,
        blobs=local.blobs,
        clock=clock,
        ids=ids,
        render_report=render_report,
        owner=BROKER_OWNER,
        user=broker_user(settings),
        refuge=Refuge(local.backend.instance, settings.max_attempts),
    )
    return await stack.enter_async_context(backend)


async def _endpoint(
    service: Service, blobs: BlobStore, listener: socket.socket, stack: AsyncExitStack
) -> str:
    """Serve the HTTP API, and the blobs too, if there is a token for agents that share no store with it."""
    settings = service.settings
    offered = blobs if isinstance(blobs, DirectoryBlobStore) and settings.blob_token is not None else None
    app = create_app(
        offered,
        token=settings.blob_token,
        max_blob_bytes=settings.max_blob_bytes,
        unprotected=settings.insecure,
        service=service,
    )
    certificate = certificate_of(settings)
    host, port = settings.listen_address
    bound = await stack.enter_async_context(
        serving(app, host, port, listener=listener, certificate=certificate)
    )
    return f"{'https' if certificate else 'http'}://{bound[0]}:{bound[1]}"
