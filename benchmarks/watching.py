"""From a report of an agent to the last of a thousand watchers of its operation, against the same by hand."""

import asyncio
import json

from benchmarks.broker import READY, Processes
from benchmarks.http_backend import HttpBackend, side_by_side, watched_by
from benchmarks.measure import Result, percentile, spread

_WATCHERS = 1000
_SECONDS = 20.0
_ROUNDS = 3


def measure() -> list[Result]:
    return [asyncio.run(_measure())]


async def _measure() -> Result:
    ours: list[float] = []
    theirs: list[float] = []
    with Processes() as processes:
        async with side_by_side(processes) as (backend, plain):
            path = await backend.begin()
            for _ in range(_ROUNDS):
                ours += await _ages(processes, backend, path)
                theirs += await _ages(processes, plain, "/events")
            processes.end(backend.pid)
            processes.end(plain.pid)
    last = percentile(ours, 99)
    return Result(
        f"SSE: from the report to the last of {_WATCHERS:,} watchers, 99th percentile",
        last,
        "StreamingResponse and queues by hand",
        percentile(theirs, 99),
        "≤ 0.25 s",
        last <= 0.25,
        f"{spread(ours)}; by hand {spread(theirs)}",
    )


async def _ages(processes: Processes, server: HttpBackend, path: str) -> list[float]:
    """Return how old each report was when the last watcher had it."""
    crowd = await watched_by(processes, server, path, _WATCHERS)
    before = len(processes.said(crowd).splitlines())
    await asyncio.sleep(_SECONDS)
    said = processes.said(crowd).splitlines()[before:]
    processes.end(crowd)
    return [json.loads(line)[-1] for line in said if line != READY]
