"""Where the tests get a PostgreSQL from, and what they say when they get none."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.broker.test_search import add, bare_machine, link_commands
from tests.postgres.databases import any_postgres
from tests.postgres.errors import PostgresUnavailableError

__all__ = ["bare_machine"]

SCRIPT = Path(__file__).parents[2] / "scripts" / "obtain-postgres"


@pytest.fixture(autouse=True)
def no_postgres(bare_machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KTRDR_TEST_POSTGRES_URL", raising=False)
    monkeypatch.setenv("KTRDR_TEST_POSTGRES", str(bare_machine / "nothing"))


def obtain() -> subprocess.CompletedProcess[str]:
    return subprocess.run([SCRIPT, sys.executable], capture_output=True, text=True, check=False)


def test_the_server_that_is_named_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KTRDR_TEST_POSTGRES_URL", "postgresql://somewhere")
    with any_postgres() as url:
        assert url == "postgresql://somewhere"


@pytest.mark.parametrize(
    ("package_manager", "command"),
    [("apt-get", "scripts/obtain-postgres"), ("dnf", "dnf install"), ("other", "https://get.docker.com")],
)
@pytest.mark.skipif(sys.platform == "darwin", reason="There it is always brew.")
def test_without_a_server_there_is_an_error_that_names_the_command_of_this_system(
    bare_machine: Path, package_manager: str, command: str
) -> None:
    add(bare_machine, package_manager)
    with pytest.raises(PostgresUnavailableError, match=command), any_postgres():
        pass


def test_the_script_does_nothing_when_a_server_is_named(
    bare_machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    link_commands(bare_machine)
    monkeypatch.setenv("KTRDR_TEST_POSTGRES_URL", "postgresql://somewhere")
    done = obtain()
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_script_says_what_to_do_where_it_cannot_install(bare_machine: Path) -> None:
    link_commands(bare_machine)
    done = obtain()
    assert done.returncode == 1
    assert "Get one: " in done.stderr
    assert "-m 'not postgres'" in done.stderr
