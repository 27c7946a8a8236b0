"""No-op jobs with one agent and with eight, as processes; a machine with few cores sets the limit itself."""

import asyncio
import os
import statistics
import time

from benchmarks.installation import Installation, installation
from benchmarks.measure import Result

_AGENTS = (1, 2, 4, 8)
_JOBS = 60
_ROUNDS = 3


def measure() -> list[Result]:
    return asyncio.run(_measure())


async def _measure() -> list[Result]:
    seconds: dict[int, float] = {}
    async with installation() as system:
        running = 0
        for agents in _AGENTS:
            while running < agents:
                running += 1
                await system.agent(f"a{running}")
            await _batch(system)
            seconds[agents] = statistics.median([await _batch(system) for _ in range(_ROUNDS)])
    one, most = seconds[_AGENTS[0]] / _JOBS, seconds[_AGENTS[-1]] / _JOBS
    steps = " · ".join(f"{agents}: {_JOBS / taken:.0f}/s" for agents, taken in seconds.items())
    return [
        Result(
            f"a no-op job, {_AGENTS[-1]} agents of one slot",
            most,
            "one agent of one slot",
            one,
            "no slower",
            most <= 1.1 * one,
            f"{steps}; broker, backend and agents share {os.cpu_count()} cores",
        )
    ]


async def _batch(system: Installation) -> float:
    started = time.perf_counter()
    await asyncio.gather(*(system.run() for _ in range(_JOBS)))
    return time.perf_counter() - started
