"""A runner whose trainings take the time of the simulated world, and now and then the runner with them."""

import asyncio
import hashlib
import random
from collections.abc import Callable
from pathlib import Path

from host_agent.endings import Cancelled, Ending, Failed, Trained
from host_agent.frames import LogLine, Ready
from host_agent.made import leave_model
from host_agent.waiting import first_of
from ktrdr.errors import RunnerCrashedError
from ktrdr.events import FailureCause, ModelManifest
from ktrdr.models.bundle import BUNDLE_FILES, pack
from ktrdr.training.job import TrainedModel, TrainingJob
from ktrdr.training.progress import Progress, Stage
from tests.unit.backend_cases import manifest_of

INLINE_LIMIT_BYTES = 4096
"""About every second model is larger, and goes by reference."""
_CRASHES = 0.08
_OF_ITS_OWN = 0.05
"""Of the trainings end by a fault of their own."""
_EPOCHS = (2, 12)
_EPOCH_S = (0.2, 6.0)


class SimulatedRunner:
    """A `host_agent.runner_process.Runner`: what it makes depends on strategy and seed alone.

    Args:
        rng: decides how long it takes and what goes wrong.
        is_calm: says whether nothing does.
    """

    def __init__(self, rng: random.Random, *, is_calm: Callable[[], bool]) -> None:
        self._rng = rng
        self._is_calm = is_calm

    def warm(self) -> None:
        """Nothing takes time yet."""

    async def ready(self) -> Ready:
        await asyncio.sleep(self._rng.random())
        if self._happens(_CRASHES):
            raise RunnerCrashedError("It did not start.")
        return Ready(device="cpu", device_name="simulated", memory_bytes=1, import_seconds=1.0)

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
        epochs = self._rng.randint(*_EPOCHS)
        crashes_in = self._rng.randrange(epochs) if self._happens(_CRASHES) else None
        epoch_s = self._rng.uniform(*_EPOCH_S)
        for epoch in range(epochs):
            await first_of(cancel.wait(), asyncio.sleep(epoch_s))
            if cancel.is_set():
                return Cancelled(epoch=epoch)
            if epoch == crashes_in:
                raise RunnerCrashedError("It was killed.")
            on_progress(
                Progress(stage=Stage.TRAIN, fraction=(epoch + 1) / epochs, epoch=epoch + 1, epochs=epochs)
            )
            on_log(LogLine(level="info", event=f"epoch {epoch + 1}", fields={}))
        if self._happens(_OF_ITS_OWN):
            return Failed(
                cause=FailureCause.TRAINING_DIVERGED, message="The loss is not a number.", epoch=epochs
            )
        model = made_of(job)
        await asyncio.to_thread(leave_model, model, bundle)
        return Trained(manifest=model.manifest)

    async def close(self) -> None:
        """Nothing is open."""

    def _happens(self, probability: float) -> bool:
        return self._rng.random() < probability and not self._is_calm()


def made_of(job: TrainingJob) -> TrainedModel:
    """Return the model that a job makes, wherever and whenever."""
    sha256 = hashlib.sha256(job.strategy_yaml.encode()).hexdigest()
    files = files_of(job.seed)
    bundle = pack(files)
    manifest: ModelManifest = manifest_of(
        files, bundle, strategy=job.strategy_name, strategy_sha256=sha256, seed=job.seed
    )
    return TrainedModel(manifest=manifest, bundle=bundle)


def files_of(seed: int) -> dict[str, bytes]:
    """Return the files of the model of a seed."""
    rng = random.Random(seed)
    size = INLINE_LIMIT_BYTES // len(BUNDLE_FILES) if seed % 2 else INLINE_LIMIT_BYTES
    return {name: rng.randbytes(size // 2) for name in BUNDLE_FILES}
