"""Runners inside the agent's process that train nothing: what is left is the path."""

import asyncio
import hashlib
import time
from collections.abc import Callable
from pathlib import Path

from host_agent.endings import Cancelled, Ending, Trained
from host_agent.frames import LogLine, Ready
from host_agent.made import leave_model
from host_agent.waiting import first_of
from ktrdr.events import ModelManifest
from ktrdr.models.bundle import BUNDLE_FILES, WEIGHTS_FILE, digests, pack
from ktrdr.training.job import TrainedModel, TrainingJob
from ktrdr.training.progress import Progress

FINISHED_AT = "finished_at"
"""The metric of a model that says when its run was over, in seconds of this machine's monotonic clock."""
_SMALL_BYTES = 512


class NoopRunner:
    """A `Runner` whose model is there at once, valid, and on the disk like any other's.

    Args:
        weights_bytes: of the model; None: next to nothing.
        seconds: that a run takes.
    """

    def __init__(self, *, weights_bytes: int | None = None, seconds: float = 0.0) -> None:
        files = {name: hashlib.sha256(name.encode()).digest() * (_SMALL_BYTES // 32) for name in BUNDLE_FILES}
        if weights_bytes is not None:
            files[WEIGHTS_FILE] = random_weights(weights_bytes)
        self._bundle = pack(files)
        self._digests = digests(files)
        self._sha256 = hashlib.sha256(self._bundle).hexdigest()
        self._seconds = seconds

    def warm(self) -> None:
        """Nothing takes time."""

    async def ready(self) -> Ready:
        return Ready(device="cpu", device_name="none", memory_bytes=0, import_seconds=0.0)

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
        if self._seconds:
            await first_of(cancel.wait(), asyncio.sleep(self._seconds))
            if cancel.is_set():
                return Cancelled()
        manifest = self._manifest(job, finished_at=time.monotonic())
        await asyncio.to_thread(leave_model, TrainedModel(manifest=manifest, bundle=self._bundle), bundle)
        return Trained(manifest=manifest)

    async def close(self) -> None:
        """Nothing is open."""

    def _manifest(self, job: TrainingJob, finished_at: float) -> ModelManifest:
        bars = job.datasets[0].ref
        return ModelManifest(
            strategy=job.strategy_name,
            symbol=bars.symbol,
            timeframe=bars.timeframe,
            output_format="classification",
            features=("none",),
            classes=("BUY", "HOLD", "SELL"),
            metrics={FINISHED_AT: finished_at},
            epochs_trained=1,
            best_epoch=1,
            train_rows=1,
            validation_rows=1,
            test_rows=1,
            parameters=1,
            strategy_sha256=hashlib.sha256(job.strategy_yaml.encode()).hexdigest(),
            weights_sha256=self._digests[WEIGHTS_FILE].sha256,
            bundle_sha256=self._sha256,
            bundle_size=len(self._bundle),
            files=self._digests,
            seed=job.seed,
            device="cpu",
        )


def random_weights(size_bytes: int) -> bytes:
    """Return float32 numbers that compress as little as trained ones."""
    import numpy as np

    numbers = np.random.default_rng(7).standard_normal(size_bytes // 4, dtype=np.float32)
    return numbers.tobytes()
