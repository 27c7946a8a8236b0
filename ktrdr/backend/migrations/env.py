"""Alembic's entry: runs the revisions, in the caller's transaction where it gives one."""

from typing import Literal

from alembic import context
from alembic.autogenerate.api import AutogenContext
from sqlalchemy import Connection

from ktrdr.backend.database import Database
from ktrdr.backend.tables import UtcDateTime, metadata
from ktrdr.settings import load_settings


def _plain_types(kind: str, item: object, _context: AutogenContext) -> str | Literal[False]:
    # A revision describes the database of its day and must not change with our classes.
    return "sa.DateTime(timezone=True)" if kind == "type" and isinstance(item, UtcDateTime) else False


def _run(connection: Connection) -> None:
    context.configure(
        connection=connection,
        target_metadata=metadata,
        render_item=_plain_types,
        # SQLite changes a column by copying its table.
        render_as_batch=True,
    )
    with context.begin_transaction():
        context.run_migrations()


given = context.config.attributes.get("connection")
if given is not None:
    _run(given)
else:  # the alembic command, as CONTRIBUTING describes
    database = Database(load_settings().database)
    with database.upgrading() as own:
        _run(own)
    database.close()
