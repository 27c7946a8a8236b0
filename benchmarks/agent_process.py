"""A host agent as a process of its own, with a runner that a measurement needs; ends with SIGTERM."""

import argparse
import asyncio
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.broker import READY
from benchmarks.noop_runner import NoopRunner
from host_agent.endings import Ending
from host_agent.frames import LogLine, Ready
from host_agent.runner_child import RunnerOptions
from host_agent.runner_process import Runner, RunnerProcess
from ktrdr.app.hosting import hosted
from ktrdr.clock import SystemClock
from ktrdr.logs import configure_logging
from ktrdr.settings import load_settings
from ktrdr.training.job import TrainingJob
from ktrdr.training.progress import Progress


class TimedRunner:
    """Writes when each run was over, on the monotonic clock; otherwise the runner that it wraps."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner

    def warm(self) -> None:
        self._runner.warm()

    async def ready(self) -> Ready:
        return await self._runner.ready()

    async def run(
        self,
        job: TrainingJob,
        *,
        run_id: str,
        bundle: Path,
        cancel: asyncio.Event,
        on_progress: Callable[[Progress], None],
        on_log: Callable[[LogLine], None],
    ) -> Ending:
        try:
            return await self._runner.run(
                job, run_id=run_id, bundle=bundle, cancel=cancel, on_progress=on_progress, on_log=on_log
            )
        finally:
            sys.stdout.write(f"ended {job.operation_id} {time.monotonic()}\n")

    async def close(self) -> None:
        await self._runner.close()


def _training_runner() -> Runner:
    options = RunnerOptions(device="cpu", threads=1, log_level="error")
    return TimedRunner(
        RunnerProcess(options, max_bundle_bytes=2**30, cancel_grace_s=3.0, clock=SystemClock())
    )


def _stamp_progress() -> None:
    """Have the runner processes of this agent be those that say when their progress was made."""
    start = asyncio.create_subprocess_exec

    async def start_stamped(*command: str, **options: Any) -> asyncio.subprocess.Process:
        other = ("benchmarks.stamped_runner" if word == "host_agent.runner" else word for word in command)
        return await start(*other, **options)

    asyncio.create_subprocess_exec = start_stamped  # type: ignore[assignment]


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--id", required=True)
    parser.add_argument("--slots", type=int, default=1)
    parser.add_argument("--train", action="store_true", help="in runner processes, rather than do nothing")
    parser.add_argument("--stamped", action="store_true", help="progress says when it was made")
    parser.add_argument("--weights-bytes", type=int, help="of the model that doing nothing makes")
    parser.add_argument("--seconds", type=float, default=0.0, help="that doing nothing takes")
    options = parser.parse_args()

    if options.stamped:
        _stamp_progress()

    def new_runner() -> Runner:
        if options.train:
            return _training_runner()
        return NoopRunner(weights_bytes=options.weights_bytes, seconds=options.seconds)

    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    settings = load_settings(agent_id=options.id, slots=options.slots)
    async with hosted(settings, new_runner=new_runner) as agent:
        await agent.start()
        sys.stdout.write(f"{READY}\n")
        await stop.wait()


if __name__ == "__main__":
    configure_logging("error")
    asyncio.run(main())
