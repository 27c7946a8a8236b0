"""A process with one host agent as `ktrdr agent` runs it, and what it talks to, for tests to signal.

``python -m tests.unit.agent_process ROOT BEHAVIOUR`` prints a line when it is ready to be signalled, and at
its end what the backend has heard, as JSON.
"""

import asyncio
import json
import sys
from collections.abc import Callable
from pathlib import Path

from host_agent.endings import Ending
from host_agent.frames import LogLine
from ktrdr.app.hosting import run_agent
from ktrdr.bus.memory import MemoryBus
from ktrdr.cli.interrupts import run_service
from ktrdr.events import TrainingFailed
from ktrdr.logs import configure_logging
from ktrdr.settings import load_settings
from ktrdr.training.job import TrainingJob
from ktrdr.training.progress import Progress
from tests.unit.agent_cases import Model, ScriptedRunner, World, eventually, world


class StuckRunner(ScriptedRunner):
    """A runner that does not even end when it is told to."""

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
        self.active = 1
        return await asyncio.get_running_loop().create_future()  # type: ignore[no-any-return]  # never


def main(root: Path, behaviour: str) -> None:
    configure_logging("debug", "json")
    settings = load_settings(
        home=root,
        agent_id="agent",
        presence_interval_s=0.1,
        publish_timeout_s=0.5,
        blob_store=str(root / "blobs"),
    )

    async def work(soon: asyncio.Event, at_once: asyncio.Event) -> None:
        async with world(root) as around:
            runner = StuckRunner() if behaviour == "stuck" else ScriptedRunner()
            told = asyncio.create_task(_direct(around, runner, behaviour, soon))
            await run_agent(
                settings,
                stop=soon,
                at_once=at_once,
                connect=lambda settings, name: MemoryBus(around.broker),
                new_runner=lambda: runner,
            )
            await told
            states = [presence.state for presence in around.backend.presence]
            causes = [failed.cause for failed in around.backend.events(TrainingFailed)]
            kinds = [type(event).__name__ for _, event in around.backend.heard]
            print(  # noqa: T201  # the test reads it
                json.dumps({"states": states, "causes": causes, "heard": kinds}),
                flush=True,
            )

    run_service(work)


async def _direct(around: World, runner: ScriptedRunner, behaviour: str, stopping: asyncio.Event) -> None:
    await eventually(lambda: around.backend.presence)
    if behaviour != "idle":
        await around.backend.ask()
        await eventually(lambda: runner.active)
    print("ready", flush=True)  # noqa: T201
    if behaviour == "finishes":
        await stopping.wait()
        await eventually(lambda: around.backend.presence[-1].state == "draining")
        await around.backend.ask()
        runner.finish(Model())


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
