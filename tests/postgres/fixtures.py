"""Fixtures that bring a PostgreSQL. Nothing is started before a test asks for it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.postgres.databases import Databases, any_postgres

POSTGRES = (pytest.mark.postgres, pytest.mark.xdist_group("postgres"))
"""Marks of a test that needs it: one process of the tests runs them all, so that one server is enough."""


@pytest.fixture(scope="session")
def databases() -> Iterator[Databases]:
    """The PostgreSQL of this process of the tests."""
    with any_postgres() as url:
        found = Databases(url)
        try:
            yield found
        finally:
            found.close()


@pytest.fixture
def postgres_url(databases: Databases) -> Iterator[str]:
    """A database with the tables of today, as good as this test's own: do not change the tables."""
    with databases.current() as url:
        yield url


@pytest.fixture
def empty_postgres_url(databases: Databases) -> Iterator[str]:
    """A database of this test's own, without tables."""
    with databases.empty() as url:
        yield url


_ENGINES = ("sqlite", pytest.param("postgresql", marks=POSTGRES))


@pytest.fixture(params=_ENGINES)
def database_url(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A database of this test's own: the test is run once with each engine."""
    return _url(request, tmp_path, monkeypatch)


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=(*POSTGRES, pytest.mark.long))])
def usual_database_url(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> str:
    """As `database_url`, for many tests that say little of an engine: PostgreSQL only in `make chaos`."""
    return _url(request, tmp_path, monkeypatch)


@pytest.fixture(params=_ENGINES)
def empty_database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database of this test's own without tables: the test is run once with each engine."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'home' / 'ktrdr.db'}"
    url: str = request.getfixturevalue("empty_postgres_url")
    return url


def _url(request: pytest.FixtureRequest, directory: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    # The server was started just now, and nobody has lost a lock by it.
    monkeypatch.setattr("ktrdr.backend.server_instances.RESTART_GRACE_S", 0.0)
    if request.param == "sqlite":
        return f"sqlite:///{directory / 'home' / 'ktrdr.db'}"
    url: str = request.getfixturevalue("postgres_url")
    return url
