"""From a cancellation to the end of the run, in a process of an agent's, against a bare message."""

import asyncio
import os
import time
from collections.abc import Awaitable, Callable

from benchmarks.broker import broker_url
from benchmarks.installation import Installation, installation
from benchmarks.measure import Result, percentile, spread
from benchmarks.ping import Pings
from ktrdr.backend.states import State

_CANCELS = 40
_EPOCHS = 100_000


def measure() -> list[Result]:
    return asyncio.run(_measure())


async def _measure() -> list[Result]:
    inside: list[float] = []
    outside: list[float] = []
    async with installation(epochs=_EPOCHS) as system, Pings(broker_url(), system.processes) as pings:
        agent = await system.agent("a1", "--train")
        orders = system.processes.directory / "orders"
        os.mkfifo(orders)
        elsewhere = system.processes.python(
            "-m", "benchmarks.canceller", str(orders), environment=system.environment()
        )
        await asyncio.to_thread(system.processes.wait_ready, elsewhere)
        with await asyncio.to_thread(orders.open, "w") as pipe:

            async def cancel_here(operation_id: str) -> float:
                began = time.monotonic()
                await system.backend.cancel(operation_id, "benchmark")
                return began

            async def cancel_elsewhere(operation_id: str) -> float:
                print(operation_id, file=pipe, flush=True)
                return await _when(system, elsewhere, "cancelled", operation_id)

            for number in range(_CANCELS + 1):
                here = await _cancelled(system, agent, cancel_here)
                there = await _cancelled(system, agent, cancel_elsewhere)
                if number:  # the first warms up
                    inside.append(here)
                    outside.append(there)
                await pings.send()
        bare = pings.seconds
    return [
        Result(
            f"{how} → run ended, 99th percentile",
            percentile(times, 99),
            "a message there and back, aio-pika by hand",
            percentile(bare, 99),
            "≤ 0.1 s",
            percentile(times, 99) <= 0.1,
            f"{spread(times)}; bare {spread(bare)}",
        )
        for how, times in (
            ("cancelled in the backend", inside),
            ("cancelled by another process, in the database", outside),
        )
    ]


async def _cancelled(system: Installation, agent: int, cancel: Callable[[str], Awaitable[float]]) -> float:
    """Return the seconds from the cancellation of a training to the end of its run."""
    operation_id = (await system.backend.submit(system.wish())).operation.operation_id
    began: float | None = None
    async for record in system.backend.watch(operation_id):
        if began is None and record.state is State.RUNNING and record.progress and record.progress.epoch:
            began = await cancel(operation_id)
    assert began is not None
    return await _when(system, agent, "ended", operation_id) - began


async def _when(system: Installation, process: int, what: str, operation_id: str) -> float:
    """Return when a process says that something happened to an operation, on the monotonic clock."""
    while True:
        for line in system.processes.said(process).splitlines():
            match line.split():
                case [said, its, at] if said == what and its == operation_id:
                    return float(at)
        await asyncio.sleep(0.01)
