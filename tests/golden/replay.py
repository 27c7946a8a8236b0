"""Replays recorded journals into a backend of today, and writes what comes of it: ``-m tests.golden.replay``.

Beside each journal is the database that it leaves. That changes only with what the backend is meant to do,
and is then to be written anew, and read.
"""

import asyncio
import tempfile
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import BigInteger, Column, RowMapping, Table, select

from ktrdr.backend.instances import BROKER_OWNER
from ktrdr.backend.store import OperationStore
from ktrdr.backend.submitting import Submitter
from ktrdr.backend.tables import (
    agents,
    attempts,
    inbox,
    models,
    operation_epochs,
    operation_history,
    operation_log,
    operation_progress,
    operations,
    outbox,
)
from ktrdr.bus.memory import MemoryBus
from ktrdr.ids import RandomIds
from ktrdr.logs import configure_logging
from tests.contract.virtual_clock import VirtualClock
from tests.golden.journal import Step, load
from tests.unit.backend_cases import World, wish

_AFTERWARDS_S = 30.0
_TABLES = (
    *(operations, attempts, operation_history, operation_progress, operation_epochs, operation_log),
    *(inbox, models, outbox, agents),
)
_MADE_UP = frozenset({("outbox", "event_id"), ("outbox", "claimed_by"), ("operations", "submitted_by")})
"""Columns of what is another each time."""


class _KnownIds(RandomIds):
    """Gives the next operation the id that it had."""

    def __init__(self, operation_id: str) -> None:
        self._operation_id = operation_id

    def operation_id(self, now: datetime) -> str:
        return self._operation_id


async def replay(steps: list[Step], directory: Path) -> str:
    """Return the database, as text, of a backend that was told all this, each at its time."""
    clock = VirtualClock()
    world = World.make(directory, clock=clock, backend={"owner": BROKER_OWNER})
    await world.backend.start()
    voice = MemoryBus(world.broker)
    for step in steps:
        await world.pass_time(max(0.0, step.at - clock.monotonic()))
        match step.what:
            case "submitted":
                assert step.operation_id is not None
                assert step.seed is not None
                submitter = Submitter(
                    world.settings, world.store, clock=clock, ids=_KnownIds(step.operation_id)
                )
                submitter.submit(replace(wish(), seed=step.seed))
            case "cancelled":
                assert step.operation_id is not None
                await world.backend.cancel(step.operation_id, "enough")
            case "said":
                assert step.message is not None
                assert step.exchange is not None
                await voice.publish(
                    step.message,
                    exchange=step.exchange,
                    routing_key=step.routing_key or "",
                    mandatory=False,
                    timeout_s=1.0,
                )
    await world.pass_time(_AFTERWARDS_S)
    text = _dumped(world.store)
    await world.stop()
    return text


def _dumped(store: OperationStore) -> str:
    lines = []
    with store.reading() as connection:
        for table in _TABLES:
            rows = connection.execute(select(table).order_by(*_order(table))).mappings()
            lines += [table.name, *(_shown(table, row) for row in rows), ""]
    return "\n".join(lines)


def _order(table: Table) -> list[Column[Any]]:
    """Return what sorts rows: of one operation as they were added, and operations by name."""
    by_operation = [table.c.operation_id] if "operation_id" in table.c else []
    return [*by_operation, *table.primary_key.columns]


def _shown(table: Table, row: RowMapping) -> str:
    return "  " + " | ".join(
        f"{column.name}: {row[column.name]}"
        for column in table.c
        if row[column.name] is not None
        and (table.name, column.name) not in _MADE_UP
        # By these rows are only counted.
        and not (column.primary_key and isinstance(column.type, BigInteger))
    )


def journals() -> list[Path]:
    """Return all that were recorded."""
    return sorted((Path(__file__).parent / "journals").glob("*.jsonl"))


def database_of(journal: Path) -> Path:
    """Return where the database is that a journal leaves."""
    return journal.with_suffix(".database")


def main() -> None:
    """Write down what each journal leaves today."""
    configure_logging("error")
    for journal in journals():
        with tempfile.TemporaryDirectory() as directory:
            database_of(journal).write_text(asyncio.run(replay(load(journal), Path(directory))))


if __name__ == "__main__":
    main()
