"""Databases for tests, on whichever PostgreSQL there is."""

import secrets
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import psycopg
from psycopg import sql
from sqlalchemy import make_url

from ktrdr.backend.database import Database
from ktrdr.backend.schema import ensure_schema
from ktrdr.backend.tables import metadata
from tests.broker.container import container
from tests.broker.search import docker_answers
from tests.postgres.search import given_url
from tests.postgres.server import PrivatePostgres

_PREFIX = "ktrdr_test_"


class Databases:
    """Makes databases on a server, and leaves none.

    One whose run was killed on a server that stays is removed by the next: the name of each has the token of
    its run, by which that is connected as long as it lives.

    Args:
        url: of the server, as a user who may make databases.
    """

    def __init__(self, url: str) -> None:
        self._url = make_url(url)
        self._token = secrets.token_hex(4)
        self._made = 0
        self._current: str | None = None
        self._connection = psycopg.connect(url, autocommit=True, application_name=_PREFIX + self._token)
        self._remove_of_the_dead()

    @contextmanager
    def empty(self) -> Iterator[str]:
        """Make a database without tables; yield its URL, and remove it afterwards."""
        name = self._make()
        try:
            yield self._url_of(name)
        finally:
            self._remove(name)

    @contextmanager
    def current(self) -> Iterator[str]:
        """Yield the URL of a database with the tables of today, which have no rows; one at a time.

        It is the same each time, since to make one takes half a second: leave the tables as they are.
        """
        if self._current is None:
            self._current = self._make()
            database = Database(self._url_of(self._current))
            ensure_schema(database)
            database.close()
        try:
            yield self._url_of(self._current)
        finally:
            self._clear(self._current)

    def close(self) -> None:
        """Remove what is left."""
        if self._current is not None:
            self._remove(self._current)
        self._connection.close()

    def _make(self) -> str:
        self._made += 1
        name = f"{_PREFIX}{self._token}_{self._made}"
        command = sql.SQL("CREATE DATABASE {} TEMPLATE template0")
        self._connection.execute(command.format(sql.Identifier(name)))
        return name

    def _clear(self, name: str) -> None:
        # Whoever is still connected, as a process that is ending, could hold locks or write later.
        self._connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", (name,)
        )
        with psycopg.connect(self._url_of(name), autocommit=True) as connection:
            for table in reversed(metadata.sorted_tables):
                connection.execute(sql.SQL("DELETE FROM {}").format(sql.Identifier(table.name)))

    def _remove(self, name: str) -> None:
        # Whoever is still connected, as a process that is ending.
        command = sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)")
        self._connection.execute(command.format(sql.Identifier(name)))

    def _url_of(self, name: str) -> str:
        return self._url.set(database=name).render_as_string(hide_password=False)

    def _remove_of_the_dead(self) -> None:
        names = self._connection.execute(
            "SELECT datname FROM pg_database AS made WHERE starts_with(datname, %s)"
            " AND NOT EXISTS (SELECT 1 FROM pg_stat_activity WHERE application_name <> ''"
            " AND starts_with(made.datname, application_name || '_'))",
            (_PREFIX,),
        )
        for (name,) in names.fetchall():
            self._remove(name)


@contextmanager
def any_postgres(*, durable: bool = False) -> Iterator[str]:
    """Find or start a PostgreSQL, and yield its URL: the one that is given, one in Docker, or a private one.

    Args:
        durable: whether a private one waits for the disk, as the others do.

    Raises:
        PostgresUnavailableError: There is none; the message names the one command that gets one.
    """
    with ExitStack() as stack:
        url = given_url()
        if url is None and docker_answers():
            url = stack.enter_context(container("postgres"))
        yield url if url is not None else stack.enter_context(PrivatePostgres(durable=durable)).url
