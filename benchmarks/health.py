"""How soon ``/health/*`` answers while trainings are posted and operations are watched."""

import asyncio

from benchmarks.broker import Processes
from benchmarks.http_backend import WISH, HttpBackend, side_by_side, watched_by
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


def measure() -> list[Result]:
    return asyncio.run(_measure())


async def _measure() -> list[Result]:
    live: list[float] = []
    ready: list[float] = []
    empty: list[float] = []
    with Processes() as processes:
        async with side_by_side(processes) as (backend, plain):
            for server, path in ((backend, await backend.begin()), (plain, "/events")):
                await watched_by(processes, server, path, _WATCHERS)
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
    posting = Load(server.url, "POST", post, _POSTING, _SECONDS, server.token, WISH, _POST_PAUSE_S)
    probing = Load(server.url, "GET", probe, _PROBES, _SECONDS, pause_s=_PROBE_PAUSE_S)
    found: list[Answers] = await answered(processes, posting, probing)
    assert all(each.refused == 0 for each in found)
    return found[1].seconds
