"""Run ``ktrdr`` in this process, which dies of one request: ``deadly_seed.py SEED ARGUMENT …``.

An agent that has accepted a request with that seed is killed when it hands it to its runner, as by a bug in a
driver.
"""

import os
import signal
import sys
from typing import Any

from host_agent.runner_process import RunnerProcess
from ktrdr.cli.main import main
from ktrdr.training.job import TrainingJob


def die_of(seed: int) -> None:
    """Let jobs with that seed kill this process."""
    run = RunnerProcess.run

    async def run_or_die(self: RunnerProcess, job: TrainingJob, *arguments: Any, **options: Any) -> Any:
        if job.seed == seed:
            os.kill(os.getpid(), signal.SIGKILL)
        return await run(self, job, *arguments, **options)

    RunnerProcess.run = run_or_die  # type: ignore[method-assign]  # that is the point


if __name__ == "__main__":
    die_of(int(sys.argv[1]))
    main(sys.argv[2:])
