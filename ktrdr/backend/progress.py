"""How far each running attempt is: to watchers at once, to the database now and then.

The curve is kept by epoch, in the same transactions. A backend that is killed loses what it heard in the last
`WRITE_INTERVAL_S`; what agents say while none runs is kept for it up to a limit, if at all. So a curve may
have a hole until the model is there, which has all of it.
"""

import asyncio
from collections.abc import Callable

import structlog
from sqlalchemy import insert, or_, select, update

from ktrdr.backend.curves import Curve, write_curve
from ktrdr.backend.store import OperationStore
from ktrdr.backend.tables import operation_progress
from ktrdr.backend.waiting import Offload
from ktrdr.backend.work import Work
from ktrdr.clock import Clock
from ktrdr.errors import DatabaseUnavailableError, StorageFullError
from ktrdr.events import TrainingProgress

_log = structlog.get_logger()

WRITE_INTERVAL_S = 0.1


class ProgressRecorder:
    """Keeps the newest progress of each operation: never back within an attempt.

    Args:
        store: where it is written, at most once in `WRITE_INTERVAL_S`.
        clock: for the interval.
        offload: where the database is written.
        on_progress: told of each that is news.
    """

    def __init__(
        self,
        store: OperationStore,
        *,
        clock: Clock,
        offload: Offload,
        on_progress: Callable[[TrainingProgress], None],
    ) -> None:
        self._store = store
        self._clock = clock
        self._offload = offload
        self._on_progress = on_progress
        self._newest: dict[str, tuple[int, int]] = {}
        self._unwritten: dict[str, TrainingProgress] = {}
        self._curves: dict[str, Curve] = {}
        self._wake = asyncio.Event()

    def record(self, progress: TrainingProgress) -> None:
        """Take note of progress of the claim that holds the attempt."""
        attempt, sequence = self._newest.get(progress.operation_id, (0, -1))
        # An attempt may be an earlier one, which is back: it is that of the claim that holds the grant.
        if progress.attempt == attempt and progress.sequence <= sequence:
            return
        self._newest[progress.operation_id] = (progress.attempt, progress.sequence)
        self._unwritten[progress.operation_id] = progress
        curve = self._curves.get(progress.operation_id)
        if curve is None or curve.attempt != progress.attempt:
            curve = self._curves[progress.operation_id] = Curve(progress.operation_id, progress.attempt)
        curve.add(progress)
        self._wake.set()
        self._on_progress(progress)

    def forget(self, operation_id: str) -> None:
        """Expect no more of an operation that has ended; what is not written yet still will be."""
        self._newest.pop(operation_id, None)

    async def run(self) -> None:
        """Write what is new, for ever."""
        while True:
            await self._wake.wait()
            await self.flush()
            await self._clock.sleep(WRITE_INTERVAL_S)

    async def flush(self) -> None:
        """Write what is new now."""
        self._wake.clear()
        batch, self._unwritten = self._unwritten, {}
        curves, self._curves = self._curves, {}
        if not batch:
            return

        def write(work: Work) -> None:
            _write(work, list(batch.values()))
            # In one order, so that two backends do not wait for each other.
            for _, curve in sorted(curves.items()):
                write_curve(work, curve)

        try:
            await self._offload(lambda: self._store.change(write))
        except (DatabaseUnavailableError, StorageFullError) as error:
            # Not worth a retry of its own: the next progress says more.
            _log.warning("progress not written", error=str(error))


def _write(work: Work, batch: list[TrainingProgress]) -> None:
    table = operation_progress
    # In one order: other backends write the same rows.
    for progress in sorted(batch, key=lambda progress: progress.operation_id):
        values = {
            "attempt": progress.attempt,
            "sequence": progress.sequence,
            "event": progress.model_copy(update={"earlier": ()}).model_dump_json(),
            "at": work.now,
        }
        mine = table.c.operation_id == progress.operation_id
        older = or_(table.c.attempt != progress.attempt, table.c.sequence < progress.sequence)
        if work.connection.execute(select(table.c.attempt).where(mine)).first() is None:
            work.connection.execute(insert(table).values(operation_id=progress.operation_id, **values))
        else:
            work.connection.execute(update(table).where(mine, older).values(**values))
