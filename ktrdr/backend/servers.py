"""The processes that together carry what goes over the broker."""

from dataclasses import dataclass

from sqlalchemy import Connection, select, update

from ktrdr.backend.instances import BROKER_OWNER
from ktrdr.backend.tables import instances
from ktrdr.backend.work import Work


@dataclass(frozen=True, slots=True)
class Server:
    """One of them: a ``ktrdr serve``."""

    instance: str
    host: str
    pid: int
    reaches_broker: bool
    """Whether it could when it last looked."""


def read_servers(connection: Connection) -> list[Server]:
    """Return those that have not said that they ended, the oldest first; they may have died."""
    table = instances
    query = (
        select(table.c.id, table.c.host, table.c.pid, table.c.reaches_bus)
        .where(table.c.owner == BROKER_OWNER, table.c.stopped_at.is_(None))
        .order_by(table.c.started_at, table.c.id)
    )
    return [
        Server(row.id, row.host, row.pid, reaches_broker=bool(row.reaches_bus))
        for row in connection.execute(query)
    ]


def note_end(work: Work, instance: str) -> None:
    """Note that an instance is gone, which could not say so itself."""
    row = update(instances).where(instances.c.id == instance, instances.c.stopped_at.is_(None))
    work.connection.execute(row.values(stopped_at=work.now))


def note_reach(work: Work, instance: str, *, reaches_bus: bool) -> None:
    """Note whether an instance reaches its bus."""
    row = update(instances).where(instances.c.id == instance)
    work.connection.execute(row.values(reaches_bus=reaches_bus))
