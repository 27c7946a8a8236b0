"""What the backend spends on the presence of a thousand agents, against only taking the messages."""

import asyncio
import resource
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aio_pika
from aio_pika.abc import AbstractIncomingMessage

from benchmarks.broker import broker_url
from benchmarks.installation import installation
from benchmarks.measure import Result

_AGENTS = 1000
_INTERVAL_S = 5.0
_SECONDS = 15.0


def measure() -> list[Result]:
    return asyncio.run(_measure())


async def _measure() -> list[Result]:
    async with installation() as system:
        idle = await _cpu_while(_SECONDS / 3)
        crowd = system.processes.python(
            "-m", "benchmarks.crowd", str(_AGENTS), str(_INTERVAL_S), environment=system.environment()
        )
        await asyncio.to_thread(system.processes.wait_ready, crowd)
        await asyncio.sleep(_INTERVAL_S)  # until all of them are known
        busy = await _cpu_while(_SECONDS)
        async with _plain_consumer(system.settings.broker_prefix):
            both = await _cpu_while(_SECONDS)
    share, plain = busy - idle, both - busy
    return [
        Result(
            f"presence of {_AGENTS:,} agents every {_INTERVAL_S:g} s: CPU of the backend, for each second",
            share,
            "aio-pika that takes and acknowledges them",
            plain,
            "≤ 0.05",
            share <= 0.05,
            f"{share:.1%} of a core, and {idle:.1%} when there is no agent",
        )
    ]


@asynccontextmanager
async def _plain_consumer(prefix: str) -> AsyncIterator[None]:
    async with await aio_pika.connect_robust(broker_url()) as connection:
        channel = await connection.channel()
        await channel.set_qos(prefetch_count=50)
        queue = await channel.declare_queue(exclusive=True)
        await queue.bind(f"{prefix}.presence")
        await queue.consume(_take)
        yield


async def _take(delivery: AbstractIncomingMessage) -> None:
    await delivery.ack()


async def _cpu_while(seconds: float) -> float:
    """Return the seconds of CPU that this process uses in a second."""
    started, used = time.perf_counter(), _cpu()
    await asyncio.sleep(seconds)
    return (_cpu() - used) / (time.perf_counter() - started)


def _cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime
