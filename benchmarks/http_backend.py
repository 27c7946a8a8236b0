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
from benchmarks.databases import SQLITE, empty_database
from benchmarks.sample import ROOT
from host_agent.agent import HostAgent
from host_agent.directory import claim_directory
from host_agent.options import AgentOptions
from host_agent.runner_process import Runner
from ktrdr.app.cleaning import cleaner
from ktrdr.app.operating import dead_letter_office
from ktrdr.app.trainings import Trainings
from ktrdr.backend.api.app import create_app
from ktrdr.backend.api.server import serving
from ktrdr.backend.api.service import Service
from ktrdr.backend.audit import witness_by
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

WISH = {"strategy_name": "eurusd_momentum", "seed": 7}
"""A training that is asked for again and again."""
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

    async def begin(self) -> str:
        """Have a training begun, and return where its events are."""
        async with self.client() as client:
            begun = await client.post("/api/v1/trainings", json=WISH)
        return f"/api/v1/operations/{begun.json()['task_id']}/events"


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


@asynccontextmanager
async def side_by_side(processes: Processes) -> AsyncIterator[tuple[HttpBackend, HttpBackend]]:
    """Run one whose agent reports at a steady pace, and what it is compared with."""
    home = processes.directory / "home"
    with empty_database(SQLITE, home) as database:
        backend = await http_backend(processes, database, home, "--agent")
        yield backend, await plain_backend(processes, f"sqlite:///{home / 'plain.db'}")


async def watched_by(processes: Processes, server: HttpBackend, path: str, watchers: int) -> int:
    """Have a stream of events watched by so many, and return their process."""
    command = ("benchmarks.watcher_crowd", server.url, path, server.token, str(watchers))
    crowd = processes.python("-m", *command)
    await asyncio.to_thread(processes.wait_ready, crowd)
    return crowd


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
async def _running(settings: Settings, new_runner: Callable[[], Runner] | None) -> AsyncIterator[None]:
    clock, ids, broker = SystemClock(), RandomIds(), MemoryBroker(SystemClock())
    with closing(open_blob_inventory(settings)) as blobs, OperationStore.open(settings) as store:
        bus = MemoryBus(broker)
        backend = Backend(settings, bus=bus, store=store, blobs=blobs, clock=clock, ids=ids)
        trainings = Trainings(settings, store, blobs=blobs, local=backend, hosts=None, ids=ids)
        witness = witness_by("benchmark", "tokens create")
        token = AccessTokens(store).create("benchmark", Role.ADMIN, witness=witness).secret
        letters = dead_letter_office(settings, bus)
        app = create_app(service=Service(settings, store, backend, trainings, letters, cleaner(settings)))
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
                yield
                await agent.stop()


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--agent", action="store_true", help="with one that reports at a steady pace")
    chosen = parser.parse_args()
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with _running(load_settings(), _paced if chosen.agent else None):
        await stop.wait()


def _paced() -> Runner:
    from benchmarks.paced_runner import PacedRunner

    return PacedRunner()


if __name__ == "__main__":
    configure_logging("error")
    asyncio.run(main())
