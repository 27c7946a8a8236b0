"""Claims and endings on the disk, also after a crash and on a full disk."""

import errno
import os
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from host_agent.directory import AgentDirectory, open_directory
from host_agent.durable import write_durably
from host_agent.endings import Cancelled, Failed, Trained
from host_agent.journal import Announcement, Claim, ClaimFolder, Journal
from host_agent.set_aside import forget
from ktrdr.events.causes import FailureCause
from tests.small_disk import fill
from tests.unit.agent_cases import manifest

CLAIM = Claim(operation_id="op-1", attempt=2, claim_id="claim-1")
TRAINED = Announcement(event_id="event-1", ending=Trained(manifest=manifest(b"model")))
CANCELLED = Announcement(event_id="event-2", ending=Cancelled(epoch=3))


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[AgentDirectory]:
    with open_directory(tmp_path / "agents", "agent") as directory:
        yield directory


@pytest.fixture
def journal(directory: AgentDirectory) -> Journal:
    return Journal(directory)


def loaded(journal: Journal) -> ClaimFolder:
    [folder] = journal.load()
    return folder


def with_model(journal: Journal) -> ClaimFolder:
    folder = journal.open(CLAIM)
    folder.bundle.write_bytes(b"model")
    folder.record(TRAINED)
    return folder


def test_a_claim_is_there_after_a_restart(journal: Journal) -> None:
    journal.open(CLAIM)
    assert loaded(journal).claim == CLAIM
    assert loaded(journal).announcement is None


@pytest.mark.parametrize(
    "announcement",
    [
        TRAINED,
        CANCELLED,
        Announcement(
            event_id="event-3",
            ending=Failed(cause=FailureCause.DATA_ERROR, message="a \udcff name", traceback="…", epoch=1),
        ),
    ],
    ids=lambda announcement: announcement.ending.kind,
)
def test_an_ending_is_there_after_a_restart(journal: Journal, announcement: Announcement) -> None:
    folder = journal.open(CLAIM)
    folder.bundle.write_bytes(b"model")
    folder.record(announcement)
    assert loaded(journal).announcement == announcement


def test_a_failure_leaves_no_model_on_the_disk(journal: Journal) -> None:
    folder = with_model(journal)
    folder.record(CANCELLED)
    assert not folder.bundle.exists()
    assert loaded(journal).announcement == CANCELLED


def test_a_removed_claim_is_gone(journal: Journal) -> None:
    folder = with_model(journal)
    folder.remove()
    assert not folder.path.exists()
    assert journal.load() == []


def test_removing_twice_is_no_error(journal: Journal) -> None:
    folder = with_model(journal)
    folder.remove()
    folder.remove()


def test_claims_are_loaded_in_a_fixed_order(journal: Journal) -> None:
    for name in ("b", "c", "a"):
        journal.open(CLAIM.model_copy(update={"claim_id": name}))
    assert [folder.claim.claim_id for folder in journal.load()] == ["a", "b", "c"]


# --- crashes and power loss


def test_a_crash_during_removal_leaves_nothing(journal: Journal, directory: AgentDirectory) -> None:
    folder = with_model(journal)
    folder.path.rename(directory.claims / f".{CLAIM.folder_name}")
    assert journal.load() == []
    assert list(directory.claims.iterdir()) == []


def test_a_model_without_a_record_is_not_taken_for_a_result(journal: Journal) -> None:
    journal.open(CLAIM).bundle.write_bytes(b"half a mod")
    assert loaded(journal).announcement is None


Damage = Callable[[Path], object]
DAMAGES: list[Damage] = [
    lambda path: path.write_bytes(b"\0" * path.stat().st_size),
    lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    lambda path: path.write_bytes(b"[1]"),
    lambda path: path.write_bytes(b'{"event_id": "x", "ending": {"kind": "surprise"}}'),
]


@pytest.mark.parametrize(
    "name", ["claim-1", "op-1,2", "op-1,two,claim-1", "op-1,0,claim-1", "op 1,2,claim-1", "op-1,2,claim-1,"]
)
def test_an_unreadable_claim_is_set_aside_and_said(
    journal: Journal, directory: AgentDirectory, name: str
) -> None:
    with_model(journal).path.rename(directory.claims / name)
    with capture_logs() as lines:
        assert journal.load() == []
    assert [line["event"] for line in lines] == ["unreadable record set aside"]
    assert (directory.set_aside / name / "model.bundle").read_bytes() == b"model"
    assert journal.load() == []


@pytest.mark.parametrize("damage", DAMAGES)
def test_an_unreadable_ending_is_set_aside_and_the_claim_has_none(
    journal: Journal, directory: AgentDirectory, damage: Damage
) -> None:
    damage(with_model(journal).path / "ending.json")
    with capture_logs() as lines:
        assert loaded(journal).announcement is None
    assert [line["event"] for line in lines] == ["unreadable record set aside"]
    assert (directory.set_aside / f"{CLAIM.folder_name}-ending.json").exists()


def test_an_ending_that_a_loss_of_power_has_emptied_is_none(
    journal: Journal, directory: AgentDirectory
) -> None:
    (with_model(journal).path / "ending.json").write_bytes(b"")
    assert loaded(journal).announcement is None
    assert list(directory.set_aside.iterdir()) == []


@pytest.mark.parametrize(
    "damage",
    [*DAMAGES[:2], lambda path: path.write_bytes(b""), lambda path: path.unlink()],
    ids=["zeros", "cut off", "emptied", "removed"],
)
def test_a_model_that_is_not_what_was_recorded_is_no_result(journal: Journal, damage: Damage) -> None:
    damage(with_model(journal).bundle)
    assert loaded(journal).announcement is None


def test_a_second_record_set_aside_does_not_replace_the_first(
    journal: Journal, directory: AgentDirectory
) -> None:
    for text in ("first", "second"):
        (directory.claims / "other").mkdir()
        (directory.claims / "other" / "note").write_text(text)
        journal.load()
    kept = sorted(directory.set_aside.iterdir())
    assert [(path / "note").read_text() for path in kept] == ["first", "second"]


def test_what_was_set_aside_just_now_is_kept_for_as_long_however_old_it_is(
    journal: Journal, directory: AgentDirectory
) -> None:
    path = directory.claims / "other"
    path.mkdir()
    os.utime(path, (0, 0))
    just_before = datetime.now(UTC) - timedelta(minutes=1)
    journal.load()
    assert forget(directory.set_aside, just_before) == 0
    assert [kept.name for kept in directory.set_aside.iterdir()] == ["other"]


def test_a_stray_file_among_the_claims_is_no_error(journal: Journal, directory: AgentDirectory) -> None:
    (directory.claims / "stray").write_text("?")
    assert journal.load() == []


# --- full disks


@pytest.fixture
def small_journal(small_disk: Path) -> Iterator[Journal]:
    with open_directory(small_disk, "agent") as directory:
        yield Journal(directory)


@pytest.mark.fault
def test_a_claim_that_does_not_fit_on_the_disk_leaves_nothing(
    small_journal: Journal, small_disk: Path
) -> None:
    filler = fill(small_disk)
    with pytest.raises(OSError, match="No space left") as caught:
        small_journal.open(CLAIM)
    assert caught.value.errno == errno.ENOSPC
    filler.unlink()
    assert small_journal.load() == []
    small_journal.open(CLAIM)


@pytest.mark.fault
def test_a_failure_can_be_recorded_in_the_space_that_its_model_took(
    small_journal: Journal, small_disk: Path
) -> None:
    folder = small_journal.open(CLAIM)
    folder.bundle.write_bytes(b"x" * 100_000)
    fill(small_disk)
    with pytest.raises(OSError, match="No space left"):
        folder.record(TRAINED)
    folder.record(CANCELLED)
    assert loaded(small_journal).announcement == CANCELLED


@pytest.mark.fault
def test_a_write_that_does_not_fit_changes_nothing(small_disk: Path) -> None:
    path = small_disk / "file"
    write_durably(path, b"before")
    fill(small_disk)
    with pytest.raises(OSError, match="No space left"):
        write_durably(path, b"x" * 100_000)
    assert path.read_bytes() == b"before"
    assert sorted(entry.name for entry in small_disk.iterdir()) == ["file", "filler"]
