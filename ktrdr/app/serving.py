"""`ktrdr serve`: the backend of the host agents, on a broker, and the HTTP endpoint of its blob store."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, closing
from dataclasses import dataclass

import structlog

from ktrdr.app.connecting import broker_user, connect_to_broker
from ktrdr.app.embedded import render_report
from ktrdr.backend.instances import BROKER_INSTANCE
from ktrdr.backend.service import Backend
from ktrdr.backend.store import OperationStore
from ktrdr.blobs.directory import DirectoryBlobStore
from ktrdr.blobs.opening import open_blob_inventory
from ktrdr.blobs.store import BlobStore
from ktrdr.bus.port import Bus
from ktrdr.clock import Clock, SystemClock
from ktrdr.ids import IdFactory, RandomIds
from ktrdr.settings import Settings

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Served:
    """A backend at work on a broker."""

    settings: Settings
    store: OperationStore
    blobs: BlobStore
    bus: Bus
    backend: Backend
    address: str | None
    """Where the HTTP endpoint listens; None without one."""


@asynccontextmanager
async def served(
    settings: Settings, *, clock: Clock | None = None, ids: IdFactory | None = None
) -> AsyncIterator[Served]:
    """Run the backend of the host agents as long as the block runs; there may be one for each database.

    It starts also while the broker is away, and goes on when it is back.

    Raises:
        SettingsError: no broker is named, or another setting is wrong.
        StoreError: another process serves this database.
        DatabaseUnavailableError: the database cannot be used.
    """
    clock, ids = clock or SystemClock(), ids or RandomIds()
    async with AsyncExitStack() as stack:
        store = stack.enter_context(await asyncio.to_thread(OperationStore.open, settings))
        blobs = stack.enter_context(closing(open_blob_inventory(settings)))
        bus = connect_to_broker(settings, f"backend@{socket.gethostname()}")
        stack.push_async_callback(bus.close)
        backend = Backend(
            settings,
            bus=bus,
            store=store,
            blobs=blobs,
            clock=clock,
            ids=ids,
            render_report=render_report,
            instance=BROKER_INSTANCE,
            user=broker_user(settings),
        )
        await stack.enter_async_context(backend)
        address = await _endpoint(settings, blobs, stack)
        where = {} if address is None else {"http": address}
        _log.info("serving", blobs=settings.blob_store or str(settings.blobs_dir), **where)
        yield Served(settings, store, blobs, bus, backend, address)


async def serve_until(settings: Settings, stop: asyncio.Event) -> None:
    """Serve until the event is set; raises as `served` does, and what brought the backend down."""
    async with served(settings) as app:
        stopped = asyncio.create_task(stop.wait())
        ended = asyncio.create_task(app.backend.wait_until_ended())
        try:
            await asyncio.wait({stopped, ended}, return_when=asyncio.FIRST_COMPLETED)
            if ended.done():
                ended.result()
        finally:
            for task in (stopped, ended):
                task.cancel()
            await asyncio.gather(stopped, ended, return_exceptions=True)
        _log.info("stopping")


async def _endpoint(settings: Settings, blobs: BlobStore, stack: AsyncExitStack) -> str | None:
    """Serve the blob store to agents that share no other with this process, if there is a token for it."""
    if settings.blob_token is None or not isinstance(blobs, DirectoryBlobStore):
        return None
    # Here, because a backend whose agents share a store with it does without.
    from ktrdr.backend.api.app import create_app
    from ktrdr.backend.api.server import certificate_of, serving

    app = create_app(blobs, token=settings.blob_token, max_blob_bytes=settings.max_blob_bytes)
    certificate = certificate_of(settings)
    host, port = settings.listen_address
    bound = await stack.enter_async_context(serving(app, host, port, certificate=certificate))
    return f"{'https' if certificate else 'http'}://{bound[0]}:{bound[1]}"
