"""The backend's blob endpoint, really served: in a thread of this process."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from fastapi import FastAPI
from pydantic import SecretStr

from ktrdr.backend.api.app import create_app
from ktrdr.backend.api.server import serving
from ktrdr.blobs.directory import DirectoryBlobStore

MIB = 1024 * 1024
TOKEN = SecretStr("token-of-the-tests-0123456789")
_LIMIT_S = 60.0


@dataclass(frozen=True, slots=True)
class Served:
    """A running endpoint."""

    store: DirectoryBlobStore
    host: str
    port: int

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"


@contextmanager
def blob_server(
    root: Path, *, max_blob_bytes: int = 256 * MIB, idle_s: float = 20.0, port: int = 0
) -> Iterator[Served]:
    """Serve the blobs of a directory on a free port."""
    store = DirectoryBlobStore(root)
    app = create_app(store, token=TOKEN, max_blob_bytes=max_blob_bytes, idle_s=idle_s)
    with served(app, port=port) as (host, port):
        yield Served(store, host, port)


@contextmanager
def served(app: FastAPI, *, port: int = 0) -> Iterator[tuple[str, int]]:
    """Serve an application on this machine, and yield its address."""
    started = threading.Event()
    address: list[tuple[str, int]] = []
    stop: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []

    async def serve() -> None:
        end = asyncio.Event()
        async with serving(app, "127.0.0.1", port) as bound:
            address.append(bound)
            stop.append((asyncio.get_running_loop(), end))
            started.set()
            await end.wait()

    thread = threading.Thread(target=asyncio.run, args=(serve(),), name="blob server")
    thread.start()
    try:
        assert started.wait(_LIMIT_S), "the endpoint does not start"
        yield address[0]
    finally:
        for loop, end in stop:
            loop.call_soon_threadsafe(end.set)
        thread.join(_LIMIT_S)
        assert not thread.is_alive(), "the endpoint does not stop"
