"""Jobs that do nothing, from their submission until their result is stored, against other job systems."""

import asyncio
import os
import statistics
from collections.abc import Awaitable, Callable
from pathlib import Path

from benchmarks.broker import Processes, broker_url
from benchmarks.installation import Installation, installation
from benchmarks.measure import Result, alternate_async, median_ratio
from benchmarks.peers.systems import EXCHANGES, PUBLISHERS, QUEUES, SYSTEMS, System, environment, stored
from benchmarks.raw_amqp import delete
from benchmarks.sample import STRATEGY

_JOBS = 100
_ROUNDS = 3
_ONE_BY_ONE = 25
_SLOTS = 4
_WARM_UP = 10
_READY_WITHIN_S = 60.0


def measure() -> list[Result]:
    return asyncio.run(_measure())


async def _measure() -> list[Result]:
    async with installation() as system:
        contenders = [await _ours(system), *[await _peer(peer, system.processes) for peer in SYSTEMS]]
        async with asyncio.timeout(_READY_WITHIN_S):
            for contender in contenders:
                await contender.run(_WARM_UP)
        many = await alternate_async(*(_times(its, _JOBS) for its in contenders), rounds=_ROUNDS)
        alone = await alternate_async(*(_times(its, 1) for its in contenders), rounds=_ONE_BY_ONE)
    await delete(broker_url(), queues=QUEUES, exchanges=EXCHANGES)
    return [
        *_compare(f"no-op jobs, {_JOBS} at once", many, _JOBS),
        *_compare("a no-op job alone", alone, 1),
    ]


def _times(contender: "_Contender", jobs: int) -> Callable[[], Awaitable[None]]:
    return lambda: contender.run(jobs)


def _compare(what: str, times: list[list[float]], jobs: int) -> list[Result]:
    ours, *theirs = times
    mine = statistics.median(ours) / jobs
    best = min(theirs, key=statistics.median)
    results = []
    for system, seconds in zip(SYSTEMS, theirs, strict=True):
        its = statistics.median(seconds) / jobs
        speed = 1 / median_ratio(ours, seconds)
        results.append(
            Result(
                f"{what}: submitted → result stored",
                mine,
                system.name,
                its,
                "≥ 1 x the best" if seconds is best else "–",
                speed >= 1 or seconds is not best,
                f"{1 / mine:,.0f}/s against {1 / its:,.0f}/s: {speed:.2f} x. {system.guarantees}",
            )
        )
    return results


class _Contender:
    """A job system at work, and how many results it owes."""

    def __init__(self, submit: Callable[[], Awaitable[object]], database: Path, count: str) -> None:
        self._submit = submit
        self._database = database
        self._count = count
        self._submitted = 0

    async def run(self, jobs: int) -> None:
        """Submit so many jobs, each until it is safe, and wait until all their results are to be seen."""
        self._submitted += jobs
        outstanding = asyncio.Semaphore(PUBLISHERS)

        async def submit() -> None:
            async with outstanding:
                await self._submit()

        await asyncio.gather(*(submit() for _ in range(jobs)))
        await stored(self._database, self._count, self._submitted)


async def _ours(system: Installation) -> _Contender:
    await system.agent("a1", f"--slots={_SLOTS}")
    count = "SELECT count(*) FROM operations WHERE state = 'completed'"
    return _Contender(lambda: system.backend.submit(system.wish()), system.settings.home / "ktrdr.db", count)


async def _peer(system: System, processes: Processes) -> _Contender:
    database, text = processes.directory / f"{system.name}.db", STRATEGY.read_text()
    chosen = environment(broker_url(), database)
    os.environ.update(chosen)
    publish = await system.connect()
    processes.python(*system.worker, environment=chosen)
    return _Contender(lambda: publish(text), database, system.count)
