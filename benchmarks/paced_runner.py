"""A runner inside the agent's process that reports progress at a steady pace until it is cancelled."""

import asyncio
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path

from benchmarks.noop_runner import NoopRunner
from benchmarks.stamped_runner import MADE_AT
from host_agent.endings import Cancelled, Ending
from host_agent.frames import LogLine
from ktrdr.training.job import TrainingJob
from ktrdr.training.progress import Progress, Stage

EVERY_S = 0.5
_EPOCHS = 100_000


class PacedRunner(NoopRunner):
    """Says with each report when it was made."""

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
        for epoch in count(1):
            on_progress(
                Progress(
                    Stage.TRAIN,
                    fraction=epoch / _EPOCHS,
                    epoch=epoch,
                    epochs=_EPOCHS,
                    metrics={"train_loss": 0.7, "val_loss": 0.8, MADE_AT: time.monotonic()},
                )
            )
            try:
                await asyncio.wait_for(cancel.wait(), EVERY_S)
            except TimeoutError:
                continue
            return Cancelled()
        raise AssertionError("it is cancelled")
