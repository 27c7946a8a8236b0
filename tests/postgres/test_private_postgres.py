"""The PostgreSQL that tests start for themselves."""

import subprocess
import sys
from pathlib import Path

import psycopg
import pytest

from tests.broker.processes import processes_of
from tests.e2e.waiting import eventually
from tests.postgres.databases import Databases
from tests.postgres.server import PrivatePostgres

pytestmark = [pytest.mark.postgres, pytest.mark.xdist_group("postgres")]

_WITHIN_S = 60.0
_OWNER = """
import sys
from tests.postgres.server import PrivatePostgres
with PrivatePostgres() as server:
    print(server.directory, flush=True)
    sys.stdin.read()
"""


def _forgotten_memory() -> set[str]:
    """The segments of System V that no process uses, and that stay until somebody removes them."""
    listing = Path("/proc/sysvipc/shm")
    lines = listing.read_text().splitlines()[1:] if listing.exists() else []
    return {columns[1] for columns in map(str.split, lines) if columns[6] == "0"}


@pytest.mark.fault
def test_nothing_is_left_when_its_owner_is_killed() -> None:
    before = _forgotten_memory()
    owner = subprocess.Popen(
        [sys.executable, "-c", _OWNER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with owner:
        assert owner.stdout is not None
        directory = Path(owner.stdout.readline().strip())
        assert processes_of(directory)
        owner.kill()
    eventually(
        lambda: not directory.exists() and not processes_of(directory) and _forgotten_memory() <= before,
        within_s=_WITHIN_S,
        otherwise=lambda: f"{directory}: {processes_of(directory)}",
    )


@pytest.mark.fault
def test_what_was_committed_survives_a_kill_and_nothing_survives_the_end() -> None:
    with PrivatePostgres() as server:
        with psycopg.connect(server.url) as connection:
            connection.execute("CREATE TABLE kept (word text)")
            connection.execute("INSERT INTO kept VALUES ('yes')")
        server.kill()
        server.start()
        with psycopg.connect(server.url) as connection:
            assert connection.execute("SELECT word FROM kept").fetchall() == [("yes",)]
        directory = server.directory
    assert not directory.exists()
    assert not processes_of(directory)


def test_databases_of_a_run_that_is_over_are_removed_and_those_of_one_that_lives_are_not(
    databases: Databases, postgres_url: str
) -> None:
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute("CREATE DATABASE ktrdr_test_dead_1")
        other = Databases(postgres_url)
        names = connection.execute("SELECT datname FROM pg_database").fetchall()
        assert ("ktrdr_test_dead_1",) not in names
        assert (postgres_url.rpartition("/")[2],) in names
        other.close()
