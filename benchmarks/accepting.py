"""How long a request takes until an agent has accepted it and the backend knows, against the same by hand."""

import asyncio
import secrets
import time

from benchmarks.broker import broker_url
from benchmarks.installation import Installation, installation
from benchmarks.measure import Result, percentile, spread
from benchmarks.plain_accept import PlainRequester
from benchmarks.raw_amqp import RawPublisher
from benchmarks.sample import STRATEGY
from ktrdr.backend.states import State

_REQUESTS = 150
_WARM_UP = 10
_PAUSE_S = 0.05
"""In which what the one before has left to do is done."""


def measure() -> list[Result]:
    return asyncio.run(_measure())


async def _measure() -> list[Result]:
    names = [f"bench-{what}-{secrets.token_hex(4)}" for what in ("requests", "answers")]
    body = STRATEGY.read_bytes()
    ours: list[float] = []
    theirs: list[float] = []
    async with installation() as system, RawPublisher(broker_url()) as publisher:
        for name in names:
            await publisher.queue(name)
        requester = PlainRequester(publisher, system.processes.directory / "plain.db", *names)
        await requester.start()
        directory = system.processes.directory / "plain-claims"
        directory.mkdir()
        acceptor = system.processes.python(
            "-m", "benchmarks.plain_accept", broker_url(), str(directory), *names
        )
        await asyncio.to_thread(system.processes.wait_ready, acceptor)
        await system.agent("a1", "--seconds=0.02")
        for number in range(_WARM_UP + _REQUESTS):
            await asyncio.sleep(_PAUSE_S)
            started = time.perf_counter()
            await requester.request(body)
            by_hand = time.perf_counter() - started
            await asyncio.sleep(_PAUSE_S)
            taken = await _accepted(system)
            if number >= _WARM_UP:
                ours.append(taken)
                theirs.append(by_hand)
        for name in names:
            await publisher.delete(name)
    return [
        Result(
            f"request → accepted, {percent}th percentile",
            percentile(ours, percent),
            "aio-pika and sqlite3 by hand, the same guarantees",
            percentile(theirs, percent),
            "≤ 1.11",
            percentile(ours, percent) <= percentile(theirs, percent) / 0.9,
            f"{spread(ours)}; by hand {spread(theirs)}",
        )
        for percent in (50, 99)
    ]


async def _accepted(system: Installation) -> float:
    """Return the seconds from the submission until the operation runs; leaves when it has ended."""
    started = time.perf_counter()
    operation_id = (await system.backend.submit(system.wish())).operation.operation_id
    taken: float | None = None
    async for record in system.backend.watch(operation_id):
        if taken is None and record.state is State.RUNNING:
            taken = time.perf_counter() - started
    assert taken is not None
    return taken
