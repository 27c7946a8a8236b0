"""What the backend spends on the presence of a thousand idle agents, against only taking the messages."""

import asyncio
import time

import psutil

from benchmarks.broker import broker_url
from benchmarks.installation import installation
from benchmarks.measure import Result
from host_agent.options import AgentOptions
from host_agent.presence import IDLE_INTERVALS

_AGENTS = 1000
_INTERVAL_S = IDLE_INTERVALS * AgentOptions().presence_interval_s
_SECONDS = 30.0
_IDLE_SECONDS = 5.0


def measure() -> list[Result]:
    return asyncio.run(_measure())


async def _measure() -> list[Result]:
    async with installation() as system:
        (idle,) = await _cpu_of(psutil.Process(), seconds=_IDLE_SECONDS)
        exchange = f"{system.settings.broker_prefix}.presence"
        listener = system.processes.python("-m", "benchmarks.plain_listener", broker_url(), exchange)
        crowd = system.processes.python(
            "-m", "benchmarks.crowd", str(_AGENTS), str(_INTERVAL_S), environment=system.environment()
        )
        await asyncio.to_thread(system.processes.wait_ready, listener, crowd)
        await asyncio.sleep(_INTERVAL_S)  # until all of them are known
        busy, plain = await _cpu_of(psutil.Process(), psutil.Process(listener), seconds=_SECONDS)
    share = busy - idle
    return [
        Result(
            f"presence of {_AGENTS:,} idle agents every {_INTERVAL_S:g} s: CPU of the backend, per second",
            share,
            "aio-pika that takes and acknowledges them",
            plain,
            "≤ 0.05",
            share <= 0.05,
            f"{share:.1%} of a core against {plain:.1%}; {idle:.1%} when there is no agent at all",
        )
    ]


async def _cpu_of(*processes: psutil.Process, seconds: float) -> list[float]:
    """Return the seconds of CPU that each process uses in a second, all at the same time."""
    started, used = time.perf_counter(), [_cpu(process) for process in processes]
    await asyncio.sleep(seconds)
    passed = time.perf_counter() - started
    return [(_cpu(process) - before) / passed for process, before in zip(processes, used, strict=True)]


def _cpu(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)
