"""`ktrdr db`, over databases of both engines."""

import json
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import make_url, text
from typer.testing import CliRunner, Result

from ktrdr.backend.database import Database
from ktrdr.backend.instances import Instances
from ktrdr.backend.schema import HEAD, ensure_schema
from ktrdr.backend.store import OperationStore
from ktrdr.cli.main import app
from ktrdr.settings import load_settings
from tests.unit.backend_cases import World, settings_in, started


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    settings = settings_in(tmp_path)
    monkeypatch.setenv("KTRDR_HOME", str(settings.home))
    monkeypatch.setenv("KTRDR_MODELS_DIR", str(settings.models_dir))
    return settings.home


def run(*arguments: str | Path, status: int = 0) -> Result:
    result = CliRunner().invoke(app, ["db", *map(str, arguments)])
    assert result.exit_code == status, result.output
    return result


def ask(*arguments: str | Path, status: int = 0) -> Any:
    return json.loads(run(*arguments, "--json", status=status).stdout)


def files(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def use(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("KTRDR_DATABASE_URL", url)


async def one_model(directory: Path) -> str:
    """Train one model in an installation; return its name."""
    async with started(directory) as world:
        return await model_in(world)


async def model_in(world: World) -> str:
    run = await world.running()
    await world.agent.finish(run)
    await world.pass_time()
    name = world.get(run).model
    assert name is not None
    return name


# --- status, upgrade


def test_the_status_of_a_database_is_told_without_its_password(
    home: Path, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with OperationStore.open(settings_in(home.parent, database_url=database_url)):
        pass
    use(monkeypatch, database_url)
    told = ask("status")
    assert told["engine"].startswith(("SQLite 3.", "PostgreSQL 1"))
    assert told["schema"] == {"revision": HEAD, "pending": [], "is_current": True}
    assert (told["operations"], told["models"], told["servers"]) == ({}, 0, [])
    assert told["size_bytes"] > 10_000
    shown = run("status").output
    assert f"{HEAD}, up to date" in shown
    password = make_url(database_url).password
    assert password is None or password not in shown + json.dumps(told)


def test_a_database_is_upgraded_once_and_left_alone_then(
    home: Path, empty_database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(monkeypatch, empty_database_url)
    database = Database(empty_database_url)
    with database.read():
        pass
    database.close()
    assert ask("status")["schema"]["revision"] is None
    assert "ktrdr db upgrade" in run("status").output
    told = ask("upgrade")
    assert (told["from"], told["to"], told["applied"][0]) == (None, HEAD, "0001")
    assert "is up to date" in run("upgrade").output


def test_a_database_that_is_missing_is_not_made_by_asking(home: Path) -> None:
    assert "no operations database" in ask("status", status=1)["error"]["message"]
    assert not home.exists()


def test_a_database_of_a_newer_program_is_told(home: Path) -> None:
    database = Database(f"sqlite:///{home / 'ktrdr.db'}")
    ensure_schema(database)
    with database.write() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    database.close()
    for command in ("status", "upgrade"):
        assert "Upgrade ktrdr" in ask(command, status=1)["error"]["fix"]


# --- backup, restore


async def test_a_backup_is_made_while_the_database_is_in_use_and_restored_as_it_was(
    home: Path, tmp_path: Path
) -> None:
    name = await one_model(tmp_path)
    database = home / "ktrdr.db"
    live = Database(f"sqlite:///{database}")
    with live.write() as connection:
        connection.execute(text("DELETE FROM inbox"))
        told = ask("backup", tmp_path / "copy.db")
    live.close()
    assert told["backup"]["models"] == [name]
    assert told["differences"] == {}
    assert files(tmp_path) == ["copy.db", "home", "models"]
    second = await one_model(tmp_path)

    restored = ask("restore", tmp_path / "copy.db", "--yes")
    assert restored["restored"]["operations"] == 1
    assert restored["models_not_in_it"] == [second]
    with OperationStore.open(settings_in(tmp_path)) as store:
        assert [model.name for model in store.models.list_models()] == [name]
    kept = OperationStore.open(settings_in(tmp_path, database_url=f"sqlite:///{restored['kept']}"))
    assert len(kept.models.list_models()) == 2
    kept.close()


async def test_models_that_are_not_what_they_were_are_pointed_out(home: Path, tmp_path: Path) -> None:
    name = await one_model(tmp_path)
    (tmp_path / "models" / name / "metadata.json").write_text("{}")
    assert "metadata.json" in ask("backup", tmp_path / "copy.db")["differences"][name][0]
    assert f"model {name}" in run("backup", tmp_path / "copy.db", "--overwrite").output


def test_a_file_that_exists_is_not_overwritten_unless_that_is_said(home: Path, tmp_path: Path) -> None:
    run("upgrade")
    (tmp_path / "letter").write_text("to my aunt")
    assert "--overwrite" in ask("backup", tmp_path / "letter", status=1)["error"]["fix"]
    assert (tmp_path / "letter").read_text() == "to my aunt"
    run("backup", tmp_path / "letter", "--overwrite")
    assert "exists" in ask("backup", home / "ktrdr.db", "--overwrite", status=1)["error"]["message"]


def test_a_backup_that_cannot_be_written_there_is_told_of_the_place(home: Path, tmp_path: Path) -> None:
    OperationStore.open(load_settings()).close()
    (tmp_path / "file").touch()
    for place in (tmp_path / "not-there" / "copy.db", tmp_path / "file" / "copy.db"):
        error = ask("backup", place, status=1)["error"]
        assert error["message"].startswith(f"{place} cannot be written: ")
        assert error["fix"] == "Name a file in a directory that is yours."


def test_what_is_no_backup_is_refused_and_changes_nothing(home: Path, tmp_path: Path) -> None:
    run("upgrade")
    before = (home / "ktrdr.db").read_bytes()
    run("backup", tmp_path / "torn")
    content = bytearray((tmp_path / "torn").read_bytes())
    content[4096 * 2 : 4096 * 6] = bytes(4096 * 4)
    (tmp_path / "torn").write_bytes(content)
    (tmp_path / "letter").write_bytes(b"to my aunt " * 1000)
    other = Database(f"sqlite:///{tmp_path / 'other.db'}")
    with other.write() as connection:
        connection.execute(text("CREATE TABLE recipes (cake TEXT)"))
    other.close()
    for name, problem in (
        ("torn", "damaged"),
        ("letter", "damaged"),
        ("other.db", "no database of ktrdr"),
        ("nothing", "no file"),
    ):
        assert problem in ask("restore", tmp_path / name, "--yes", status=1)["error"]["message"]
    assert (home / "ktrdr.db").read_bytes() == before


def test_a_damaged_database_is_put_aside_for_a_backup(home: Path, tmp_path: Path) -> None:
    run("upgrade")
    run("backup", tmp_path / "copy.db")
    (home / "ktrdr.db").write_bytes(b"this is not a database, it is a letter to my aunt " * 100)
    kept = Path(ask("restore", tmp_path / "copy.db", "--yes")["kept"])
    assert kept.read_bytes().startswith(b"this is not")
    assert ask("status")["schema"]["is_current"]


def test_nothing_is_restored_while_a_process_carries_operations(home: Path, tmp_path: Path) -> None:
    run("upgrade")
    run("backup", tmp_path / "copy.db")
    lock = Instances(home / "instances").register("broker")
    assert "Stop them first" in ask("restore", tmp_path / "copy.db", "--yes", status=1)["error"]["fix"]
    lock.release()
    assert "--yes" in ask("restore", tmp_path / "copy.db", status=1)["error"]["fix"]
    run("restore", tmp_path / "copy.db", "--yes")


def test_postgresql_has_tools_of_its_own_for_backups(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(monkeypatch, "postgresql://user:s3cret@host/ktrdr")
    for command in ("backup", "restore"):
        error = ask(command, tmp_path / "copy.db", status=1)["error"]
        assert "pg_dump" in error["fix"]
        assert "s3cret" not in json.dumps(error)
