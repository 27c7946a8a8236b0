"""From the executor, which trains in a process of an agent's, to a watcher in the backend's process."""

import asyncio
import time
from contextlib import aclosing

from pydantic import JsonValue

from benchmarks.broker import broker_url
from benchmarks.installation import Installation, installation
from benchmarks.measure import Result, percentile, spread
from benchmarks.ping import Pings
from benchmarks.stamped_runner import MADE_AT

_EPOCHS = 100_000
_SLOW: dict[str, JsonValue] = {"training.batch_size": 8}
"""There are fewer reports than the one in 50 ms that a runner sends on average, so that none waits."""
_REPORTS = 40
_ROUNDS = 6


def measure() -> list[Result]:
    return asyncio.run(_measure())


async def _measure() -> list[Result]:
    lags: list[float] = []
    async with (
        installation(epochs=_EPOCHS, training=_SLOW) as system,
        Pings(broker_url(), system.processes) as pings,
    ):
        await system.agent("a1", "--train", "--stamped")
        await _lags(system)
        pings.seconds.clear()
        for _ in range(_ROUNDS):
            lags += await _lags(system)
            for _ in range(_REPORTS):
                await pings.send()
    return [
        Result(
            "progress: executor → watcher, 99th percentile",
            percentile(lags, 99),
            "a message there and back, aio-pika by hand",
            percentile(pings.seconds, 99),
            "≤ 0.02 s",
            percentile(lags, 99) <= 0.02,
            f"{spread(lags)}; bare {spread(pings.seconds)}",
        )
    ]


async def _lags(system: Installation) -> list[float]:
    """Return how many seconds old each report of a training was when it was seen."""
    lags: list[float] = []
    seen = -1
    operation_id = (await system.backend.submit(system.wish())).operation.operation_id
    async with aclosing(system.backend.watch(operation_id)) as records:
        async for record in records:
            progress = record.progress
            if progress is None or progress.sequence == seen or not progress.epoch:
                continue
            seen = progress.sequence
            lags.append(time.monotonic() - progress.metrics[MADE_AT])
            if len(lags) == _REPORTS:
                break
    await system.backend.cancel(operation_id, "measured")
    await system.backend.wait(operation_id)
    return lags
