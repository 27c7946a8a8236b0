"""How soon ``/health/*`` answers while trainings are posted and operations are watched."""

import asyncio

from benchmarks.broker import Processes
from benchmarks.databases import SQLITE, empty_database
from benchmarks.http_backend import HttpBackend, http_backend, plain_backend
from benchmarks.http_load import Answers, Load, answered
from benchmarks.measure import Result, percentile, spread

_WATCHERS = 100
_POSTING = 4
_POST_PAUSE_S = 0.2
"""Of each client: some twenty trainings in a second, all together."""
_PROBES = 2
_PROBE_PAUSE_S = 0.01
_SECONDS = 8.0
_ROUNDS = 3
_BODY = {"strategy_name": "eurusd_momentum", "seed": 7}


def measure() -> list[Result]:
    return asyncio.run(_measure())


async def _measure() -> list[Result]:
    live: list[float] = []
    ready: list[float] = []
    empty: list[float] = []
    with Processes() as processes:
        home = processes.directory / "home"
        with empty_database(SQLITE, home) as database:
            backend = await http_backend(processes, database, home, "--agent=paced")
            plain = await plain_backend(processes, f"sqlite:///{home / 'plain.db'}")
            async with backend.client() as client:
                started = await client.post("/api/v1/trainings", json=_BODY)
            watched = f"/api/v1/operations/{started.json()['task_id']}/events"
            for server, path in ((backend, watched), (plain, "/events")):
                command = ("benchmarks.watcher_crowd", server.url, path, server.token, str(_WATCHERS))
                crowd = processes.python("-m", *command)
                await asyncio.to_thread(processes.wait_ready, crowd)
            for _ in range(_ROUNDS):
                live += await _probed(processes, backend, "/api/v1/trainings", "/health/live")
                ready += await _probed(processes, backend, "/api/v1/trainings", "/health/ready")
                empty += await _probed(processes, plain, "/rows", "/empty")
    return [
        Result(
            f"{path} beside {_POSTING / _POST_PAUSE_S:.0f} trainings a second and {_WATCHERS} watchers, "
            "99th percentile",
            percentile(ours, 99),
            "an empty FastAPI route beside the same by hand",
            percentile(empty, 99),
            "≤ 0.01 s",
            percentile(ours, 99) <= 0.01,
            f"{spread(ours)}; by hand {spread(empty)}",
        )
        for path, ours in (("/health/live", live), ("/health/ready", ready))
    ]


async def _probed(processes: Processes, server: HttpBackend, post: str, probe: str) -> list[float]:
    posting = Load(server.url, "POST", post, _POSTING, _SECONDS, server.token, _BODY, _POST_PAUSE_S)
    probing = Load(server.url, "GET", probe, _PROBES, _SECONDS, pause_s=_PROBE_PAUSE_S)
    found: list[Answers] = await answered(processes, posting, probing)
    assert all(each.refused == 0 for each in found)
    return found[1].seconds
