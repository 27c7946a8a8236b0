"""`ktrdr clean`: shows by default, removes when told so, touches nothing that is needed."""

import json
import os
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update
from typer.testing import CliRunner, Result

from host_agent.directory import claim_directory, open_directory
from ktrdr.backend.store import OperationStore
from ktrdr.backend.submitting import Submitter
from ktrdr.backend.tables import operations
from ktrdr.blobs.directory import DirectoryBlobStore
from ktrdr.cli.main import app
from ktrdr.settings import Settings
from tests.unit.backend_cases import settings_in, wish


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    settings = settings_in(tmp_path)
    monkeypatch.setenv("KTRDR_HOME", str(settings.home))
    monkeypatch.setenv("KTRDR_MODELS_DIR", str(settings.models_dir))
    return settings


def run(*arguments: str) -> Result:
    result = CliRunner().invoke(app, ["clean", *arguments])
    assert result.exit_code == 0, result.output
    return result


def ask(*arguments: str) -> Any:
    return json.loads(run(*arguments, "--json").stdout)


def refuse(*arguments: str) -> dict[str, tuple[int, int | None]]:
    return {each["what"]: (each["count"], each["bytes"]) for each in ask(*arguments)["refuse"]}


def age(path: Path, days: float = 100) -> None:
    then = path.stat().st_mtime - timedelta(days=days).total_seconds()
    os.utime(path, (then, then))


def an_operation(store: OperationStore, *, ended_before: timedelta | None) -> str:
    operation_id = Submitter(Settings(), store).submit(wish()).operation.operation_id
    if ended_before is not None:
        finished = store.cancel(operation_id, "enough").updated_at - ended_before
        of_it = update(operations).where(operations.c.id == operation_id)
        store.change(lambda work: work.connection.execute(of_it.values(finished_at=finished)))
    return operation_id


def test_shows_what_would_go_and_removes_it_only_when_told(settings: Settings) -> None:
    blobs = DirectoryBlobStore(settings.blobs_dir)
    old, young = blobs.put(b"12345"), blobs.put(b"young")
    age(settings.blobs_dir / old.sha256[:2] / old.sha256[2:])
    incoming = settings.blobs_dir / "incoming" / "left"
    incoming.write_bytes(b"123")
    log = settings.logs_dir / "work-1.log"
    log.parent.mkdir()
    log.write_bytes(b"12")
    for path in (incoming, log):
        age(path)
    with OperationStore.open(settings) as store:
        forgotten = an_operation(store, ended_before=timedelta(days=91))
        recent = an_operation(store, ended_before=timedelta(days=89))
    there = {"operations": (1, None), "blobs": (1, 5), "uploads": (1, 3), "log files": (1, 2)}
    assert refuse() == there
    shown = run()
    assert "ended without a model over 90 days ago" in shown.stdout
    assert "ktrdr clean --apply" in shown.stderr
    assert blobs.exists(old.sha256)
    assert not (settings.blobs_dir / "owner").exists()

    assert refuse("--apply") == there
    assert not blobs.exists(old.sha256)
    assert blobs.exists(young.sha256)
    assert not log.exists()
    assert not incoming.exists()
    with OperationStore.open(settings) as store:
        assert [each.operation_id for each in store.list_operations()] == [recent]
    assert forgotten != recent
    assert refuse() == {}
    assert "nothing to remove" in run().stdout


def test_without_a_database_blobs_are_left_alone(settings: Settings) -> None:
    ref = DirectoryBlobStore(settings.blobs_dir).put(b"12345")
    age(settings.blobs_dir / ref.sha256[:2] / ref.sha256[2:])
    found = ask("--apply")
    assert found["refuse"] == []
    assert "no database here" in found["left_alone"][0]
    assert DirectoryBlobStore(settings.blobs_dir).exists(ref.sha256)
    assert not (settings.home / "ktrdr.db").exists()


def test_a_store_that_others_may_use_is_left_alone_until_a_backend_has_claimed_it(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared = DirectoryBlobStore(tmp_path / "shared")
    ref = shared.put(b"12345")
    age(shared.root / ref.sha256[:2] / ref.sha256[2:])
    monkeypatch.setenv("KTRDR_BLOB_STORE", str(shared.root))
    OperationStore.open(settings).close()
    found = ask("--apply")
    assert found["refuse"] == []
    assert "no ktrdr serve has made the blob store its own yet" in found["left_alone"][0]
    assert shared.exists(ref.sha256)


def test_while_the_broker_cannot_be_asked_for_dead_letters_blobs_are_left_alone(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    blobs = DirectoryBlobStore(settings.blobs_dir)
    ref = blobs.put(b"12345")
    age(settings.blobs_dir / ref.sha256[:2] / ref.sha256[2:])
    OperationStore.open(settings).close()
    monkeypatch.setenv("KTRDR_BROKER_URL", "amqp://nobody:secret@127.0.0.1:1/")
    found = ask("--apply")
    assert found["refuse"] == []
    assert found["left_alone"][0].startswith("blobs: ")
    assert "secret" not in found["left_alone"][0]
    assert blobs.exists(ref.sha256)


def test_what_an_agent_that_does_not_run_has_left_goes_and_of_one_that_runs_nothing(
    settings: Settings,
) -> None:
    with OperationStore.open(settings) as store:
        over, going_on = (an_operation(store, ended_before=span) for span in (timedelta(0), None))
    kept = {f"{going_on},1,c", "op-20260101-000000-unknown0,1,c"}
    for agent_id in ("stopped", "running"):
        with open_directory(settings.agents_dir, agent_id) as directory:
            for name in (f"{over},1,c", *kept):
                (directory.claims / name).mkdir()
                (directory.claims / name / "model.bundle").write_bytes(b"1234")
            (directory.datasets / "a").write_bytes(b"123")
            age(directory.datasets / "a")
    with open_directory(settings.agents_dir, "running") as directory:
        assert refuse("--apply") == {"claims": (1, 4), "cached data": (1, 3)}
        assert len(list(directory.claims.iterdir())) == 3
        assert (directory.datasets / "a").exists()
    with open_directory(settings.agents_dir, "stopped") as directory:
        assert {path.name for path in directory.claims.iterdir()} == kept
        assert list(directory.datasets.iterdir()) == []


def test_what_an_agent_could_not_read_goes_when_nobody_has_looked_at_it_for_long(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    for agent_id in ("stopped", "running"):
        with open_directory(settings.agents_dir, agent_id) as directory:
            for days in (89, 91):
                (directory.set_aside / f"of {days} days").write_bytes(b"12345")
                age(directory.set_aside / f"of {days} days", days)
    with open_directory(settings.agents_dir, "running") as running:
        assert refuse() == refuse("--apply") == {"unreadable claims": (1, 5)}
        assert len(list(running.set_aside.iterdir())) == 2
        left = settings.agents_dir / "stopped" / "set-aside"
        assert [path.name for path in left.iterdir()] == ["of 89 days"]
        monkeypatch.setenv("KTRDR_KEEP_SET_ASIDE_DAYS", "80")
        assert refuse() == {"unreadable claims": (1, 5)}
        monkeypatch.setenv("KTRDR_KEEP_SET_ASIDE_DAYS", "inf")
        assert refuse() == {}


def test_the_directory_of_an_agent_whose_process_is_gone_goes_once_nothing_is_left_in_it(
    settings: Settings,
) -> None:
    with OperationStore.open(settings) as store:
        over, going_on = (an_operation(store, ended_before=span) for span in (timedelta(0), None))

    def leave(number: int, *left: str, days: float = 31) -> None:
        with open_directory(settings.agents_dir, f"embedded-{number}") as directory:
            for path in left:
                (directory.path / path).mkdir()
                age(directory.path / path)
        age(directory.path / "lock", days)

    leave(1, f"claims/{over},1,c", "claims/.refuse", "set-aside/old")
    leave(2, f"claims/{going_on},1,c")  # its operation may need it
    leave(3, "claims/unreadable")  # nobody knows whose it is
    leave(4, "notes of somebody")
    leave(5, days=29)
    leave(6)
    with open_directory(settings.agents_dir, "gpu-box") as directory:  # its name is its own for ever
        pass
    age(directory.path / "lock")
    with open_directory(settings.agents_dir, "embedded-6"):
        age(settings.agents_dir / "embedded-6" / "lock")
        there = {"claims": (1, 0), "unreadable claims": (1, 0), "agents' directories": (1, 0)}
        assert refuse() == there
        assert (settings.agents_dir / "embedded-1" / "claims" / f"{over},1,c").is_dir()
        assert refuse("--apply") == there
    assert refuse() == {}  # an agent has just ended in the last
    left = {path.name for path in settings.agents_dir.iterdir()}
    assert left == {*(f"embedded-{number}" for number in range(2, 7)), "gpu-box"}
    with claim_directory(settings.agents_dir) as again:
        assert again.agent_id == "embedded-1"
        assert (again.claims / f"{going_on},1,c").is_dir()


def test_on_a_machine_of_agents_the_blobs_of_the_backend_are_none_of_its_business(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KTRDR_BLOB_STORE", "https://backend.example.org:8420")
    assert ask() == {"applied": False, "refuse": [], "left_alone": []}


def test_what_was_in_the_way_of_a_version_goes_when_it_is_old(settings: Settings) -> None:
    aside = settings.models_dir / ".replaced"
    old, young = aside / "momentum.EURUSD_1h_v1~aa", aside / "momentum.EURUSD_1h_v2~bb"
    for path in (old, young):
        path.mkdir(parents=True)
        (path / "model.safetensors").write_bytes(b"12345")
    age(old, days=91)
    age(young, days=89)
    assert refuse() == {"replaced versions": (1, 5)}
    assert old.exists()
    assert refuse("--apply") == {"replaced versions": (1, 5)}
    assert not old.exists()
    assert young.exists()
    assert refuse() == {}
