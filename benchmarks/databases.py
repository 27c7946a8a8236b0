"""The databases that a run of the benchmarks measures on, both as durable as they can be."""

import atexit
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path

from tests.postgres.databases import Databases, any_postgres

SQLITE = "SQLite"
POSTGRESQL = "PostgreSQL"
ENGINES = (SQLITE, POSTGRESQL)


@contextmanager
def empty_database(engine: str, directory: Path) -> Iterator[str]:
    """Yield the URL of a database without tables: a file in the directory, or one of this run's server."""
    if engine == SQLITE:
        directory.mkdir(parents=True)
        yield f"sqlite:///{directory / 'ktrdr.db'}"
        return
    with _server().empty() as url:
        yield url


@cache
def _server() -> Databases:
    """Start the server with the first call; the end of the run stops it."""
    running = ExitStack()
    atexit.register(running.close)
    databases = Databases(running.enter_context(any_postgres(durable=True)))
    running.callback(databases.close)
    return databases
