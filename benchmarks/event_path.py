"""The whole job through the event path, against calling the executor directly."""

import asyncio
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path

from benchmarks.measure import Result, timed
from benchmarks.sample import STRATEGY, job, prepared
from ktrdr.app.embedded import embedded, submission_of
from ktrdr.backend.states import State
from ktrdr.backend.wishes import TrainingWish
from ktrdr.ids import RandomIds
from ktrdr.settings import Settings
from ktrdr.training.cancellation import ManualCancellation
from ktrdr.training.executor import TrainingExecutor
from ktrdr.training.progress import SilentObserver

_EPOCHS = 60
_ROUNDS = 5


def measure() -> list[Result]:
    with tempfile.TemporaryDirectory() as directory:
        home = Path(directory)
        direct_job = job(home, epochs=_EPOCHS)

        def direct() -> None:
            TrainingExecutor().run(direct_job, SilentObserver(), ManualCancellation())

        warm, direct_s = asyncio.run(_through_events(home, direct))
    ours, theirs = statistics.median(warm), statistics.median(direct_s)
    return [
        Result(
            f"submit → model persisted, {_EPOCHS} epochs, runner warm",
            ours,
            "calling the executor directly",
            theirs,
            "≤ 1.05 + persisting",
            ours <= 1.05 * theirs + 0.5,
            f"{ours - theirs:+.2f} s, report and fsyncs included",
        )
    ]


async def _through_events(home: Path, direct: Callable[[], object]) -> tuple[list[float], list[float]]:
    settings = Settings(home=home / "home", models_dir=home / "models")
    training, blobs = prepared(settings.home, epochs=_EPOCHS)
    assert blobs.root == settings.blobs_dir.absolute()
    wish = TrainingWish(STRATEGY, seed=7)
    through: list[float] = []
    directly: list[float] = []
    async with embedded(settings) as app:
        await app.start()
        for round_ in range(_ROUNDS + 1):
            started = asyncio.get_running_loop().time()
            submission = await app.backend.submit(submission_of(training, wish, RandomIds()))
            record = await app.backend.wait(submission.operation.operation_id)
            assert record.state is State.COMPLETED, record
            taken = asyncio.get_running_loop().time() - started
            alone = await asyncio.to_thread(timed, direct)
            if round_:  # the first warms both up
                through.append(taken)
                directly.append(alone)
    return through, directly
