"""A backend with its HTTP API, and an agent in the same process or none; a program of its own."""

import argparse
import asyncio
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from pathlib import Path

import httpx

from benchmarks.broker import READY, Processes
from benchmarks.sample import ROOT
from host_agent.agent import HostAgent
from host_agent.directory import claim_directory
from host_agent.options import AgentOptions
from host_agent.runner_process import Runner
from ktrdr.app.trainings import Trainings
from ktrdr.backend.api.app import create_app
from ktrdr.backend.api.server import serving
from ktrdr.backend.api.service import Service
from ktrdr.backend.dispatching import LOCAL_LANE
from ktrdr.backend.service import Backend
from ktrdr.backend.store import OperationStore
from ktrdr.backend.tokens import AccessTokens, Role
from ktrdr.blobs.opening import open_blob_inventory
from ktrdr.bus.memory import MemoryBroker, MemoryBus
from ktrdr.clock import SystemClock
from ktrdr.ids import RandomIds
from ktrdr.logs import configure_logging
from ktrdr.settings import Settings, load_settings

_TOKEN = "token "
_ADDRESS = "address "


@dataclass(frozen=True, slots=True)
class HttpBackend:
    """One that runs."""

    pid: int
    url: str
    token: str

    def client(self) -> httpx.AsyncClient:
        """Return a client that may do everything."""
        return httpx.AsyncClient(
            base_url=self.url, headers={"Authorization": f"Bearer {self.token}"}, timeout=60
        )


def settings_of(database_url: str, directory: Path) -> dict[str, str]:
    """Return the environment of a backend."""
    return {
        "KTRDR_HOME": str(directory),
        "KTRDR_MODELS_DIR": str(directory / "models"),
        "KTRDR_DATABASE_URL": database_url,
        "KTRDR_DATA_DIR": str(ROOT / "data"),
        "KTRDR_STRATEGIES_DIR": str(ROOT / "strategies"),
        "KTRDR_API_RATE_PER_S": "0",
        "KTRDR_DEVICE": "cpu",
    }


async def http_backend(
    processes: Processes, database_url: str, directory: Path, *arguments: str
) -> HttpBackend:
    """Start one, and return when it answers."""
    environment = settings_of(database_url, directory)
    pid = processes.python("-m", "benchmarks.http_backend", *arguments, environment=environment)
    return await _started(processes, pid)


async def plain_backend(processes: Processes, database_url: str) -> HttpBackend:
    """Start what it is compared with, and return when it answers."""
    return await _started(processes, processes.python("-m", "benchmarks.plain_backend", database_url))


def announce(url: str, token: str = "") -> None:
    """Say that this process can be measured, and where."""
    sys.stdout.write(f"{_ADDRESS}{url}\n{_TOKEN}{token}\n{READY}\n")


async def _started(processes: Processes, pid: int) -> HttpBackend:
    await asyncio.to_thread(processes.wait_ready, pid)
    lines = processes.said(pid).splitlines()
    url, token = (
        next(line.removeprefix(prefix) for line in lines if line.startswith(prefix))
        for prefix in (_ADDRESS, _TOKEN)
    )
    return HttpBackend(pid, url, token)


@asynccontextmanager
async def _running(settings: Settings, new_runner: Callable[[], Runner] | None) -> AsyncIterator[str]:
    clock, ids, broker = SystemClock(), RandomIds(), MemoryBroker(SystemClock())
    with closing(open_blob_inventory(settings)) as blobs, OperationStore.open(settings) as store:
        backend = Backend(settings, bus=MemoryBus(broker), store=store, blobs=blobs, clock=clock, ids=ids)
        trainings = Trainings(settings, store, blobs=blobs, local=backend, hosts=None, ids=ids)
        token = AccessTokens(store).create("benchmark", Role.ADMIN, by="benchmark").secret
        app = create_app(service=Service(settings, store, backend, trainings))
        with claim_directory(settings.agents_dir, prefix="embedded") as directory:
            agent = HostAgent(
                bus=MemoryBus(broker),
                blobs=blobs,
                directory=directory,
                options=AgentOptions.from_settings(settings, lanes=(LOCAL_LANE,), prewarm=False),
                clock=clock,
                ids=ids,
                new_runner=new_runner,
            )
            async with backend, serving(app, "127.0.0.1", 0) as (host, port):
                if new_runner is not None:
                    await agent.start()
                announce(f"http://{host}:{port}", token)
                yield token
                await agent.stop()


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--agent", choices=("none", "noop", "paced"), default="none")
    chosen = parser.parse_args()
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with _running(load_settings(), _RUNNERS[chosen.agent]):
        await stop.wait()


def _noop() -> Runner:
    from benchmarks.noop_runner import NoopRunner

    return NoopRunner()


def _paced() -> Runner:
    from benchmarks.paced_runner import PacedRunner

    return PacedRunner()


_RUNNERS: dict[str, Callable[[], Runner] | None] = {"none": None, "noop": _noop, "paced": _paced}


if __name__ == "__main__":
    configure_logging("error")
    asyncio.run(main())
