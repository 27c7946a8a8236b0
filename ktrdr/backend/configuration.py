"""What may be changed while everything runs, by name: it is in the database, for every process alike."""

from sqlalchemy import Connection, delete, insert, select

from ktrdr.backend.tables import configuration
from ktrdr.backend.work import Work


def read_value(connection: Connection, name: str) -> str | None:
    """Return what a name is set to; None if it never was."""
    query = select(configuration.c.value).where(configuration.c.name == name)
    value: str | None = connection.execute(query).scalar_one_or_none()
    return value


def set_value(work: Work, name: str, value: str) -> None:
    """Set a name to a value, in place of any that it had."""
    work.connection.execute(delete(configuration).where(configuration.c.name == name))
    work.connection.execute(insert(configuration).values(name=name, value=value, updated_at=work.now))
