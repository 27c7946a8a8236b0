"""The metrics of each epoch of an operation, as one line: what an attempt has lost is cut by the next."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import delete, select
from sqlalchemy.dialects import postgresql, sqlite

from ktrdr.backend.store import OperationStore
from ktrdr.backend.tables import operation_epochs
from ktrdr.backend.work import Work
from ktrdr.events import TrainingProgress
from ktrdr.events.training import MAX_METRICS

MOST_EPOCHS = 20_000
"""Of one operation; those beyond are not kept."""


def _upserts() -> Iterator[tuple[str, Any]]:
    for name, dialect in (("sqlite", sqlite), ("postgresql", postgresql)):
        new = dialect.insert(operation_epochs)
        changed = {"attempt": new.excluded.attempt, "metrics": new.excluded.metrics}
        yield name, new.on_conflict_do_update(index_elements=["operation_id", "epoch"], set_=changed)


_UPSERT = dict(_upserts())


@dataclass(frozen=True, slots=True)
class EpochPoint:
    """One complete epoch."""

    epoch: int
    metrics: Mapping[str, float]


@dataclass(slots=True)
class Curve:
    """What is to be written of one attempt."""

    operation_id: str
    attempt: int
    begins_after: int | None = None
    """The last epoch that this attempt has from the ones before; None: it does not train yet."""
    points: dict[int, Mapping[str, float]] = field(default_factory=dict)

    def add(self, progress: TrainingProgress) -> None:
        """Take what progress tells of epochs."""
        told = {each.epoch: each.metrics for each in progress.earlier}
        if progress.epoch and progress.metrics:
            told[progress.epoch] = progress.metrics
        self.points |= {
            epoch: metrics
            for epoch, metrics in told.items()
            if epoch <= MOST_EPOCHS and len(metrics) <= MAX_METRICS
        }
        if progress.epochs:
            self.begins_after = max(progress.epoch, self.begins_after or 0)


def write_curve(work: Work, curve: Curve) -> None:
    """Record epochs; those of other attempts go that this one has not reached: they will come again.

    Delivery: any number of times, by any number of backends.
    """
    table = operation_epochs
    mine = table.c.operation_id == curve.operation_id
    if curve.begins_after is not None:
        lost = (table.c.attempt != curve.attempt, table.c.epoch > curve.begins_after)
        work.connection.execute(delete(table).where(mine, *lost))
    if not curve.points:
        return
    work.connection.execute(
        _UPSERT[work.connection.dialect.name],
        [
            {
                "operation_id": curve.operation_id,
                "epoch": epoch,
                "attempt": curve.attempt,
                "metrics": json.dumps(dict(metrics)),
            }
            for epoch, metrics in curve.points.items()
        ],
    )


def read_curve(store: OperationStore, operation_id: str) -> list[EpochPoint]:
    """Return the epochs that are known of an operation, in their order; a model has them all. Blocks."""
    query = (
        select(operation_epochs.c.epoch, operation_epochs.c.metrics)
        .where(operation_epochs.c.operation_id == operation_id)
        .order_by(operation_epochs.c.epoch)
    )
    with store.reading() as connection:
        return [EpochPoint(row.epoch, json.loads(row.metrics)) for row in connection.execute(query)]
