"""The agent's own directory: one live agent each, and heirs of the dead."""

import fcntl
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from host_agent.directory import AgentDirectory, claim_directory, open_directory
from host_agent.endings import Trained
from host_agent.journal import Announcement, Claim, Journal
from ktrdr.errors import AgentError
from tests.unit.agent_cases import manifest

HOLD = """
import sys, pathlib
from host_agent.directory import claim_directory
with claim_directory(pathlib.Path(sys.argv[1])) as directory:
    print(directory.agent_id, flush=True)
    sys.stdin.read()
"""


def claim(name: str = "claim-1") -> Claim:
    return Claim(operation_id="op-1", attempt=1, claim_id=name)


def leave_a_claim(directory: AgentDirectory, name: str) -> None:
    folder = Journal(directory).open(claim(name))
    folder.bundle.write_bytes(b"model")
    folder.record(Announcement(event_id="event-1", ending=Trained(manifest=manifest(b"model"))))


def claim_ids(directory: AgentDirectory) -> list[str]:
    return [folder.claim.claim_id for folder in Journal(directory).load()]


def test_two_agents_never_share_a_directory(tmp_path: Path) -> None:
    with claim_directory(tmp_path) as first, claim_directory(tmp_path) as second:
        assert [first.agent_id, second.agent_id] == ["embedded-1", "embedded-2"]


def test_two_processes_never_share_a_directory(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "embedded-1\n"
        with claim_directory(tmp_path) as mine:
            assert mine.agent_id == "embedded-2"
        other.send_signal(signal.SIGKILL)
        other.wait()
    with claim_directory(tmp_path) as again:
        assert again.agent_id == "embedded-1"


def test_a_free_directory_is_taken_again(tmp_path: Path) -> None:
    with claim_directory(tmp_path) as directory:
        leave_a_claim(directory, "claim-1")
    with claim_directory(tmp_path) as directory:
        assert directory.agent_id == "embedded-1"
        assert claim_ids(directory) == ["claim-1"]


def test_what_dead_agents_left_is_adopted(tmp_path: Path) -> None:
    with claim_directory(tmp_path) as first, claim_directory(tmp_path) as second:
        leave_a_claim(first, "claim-1")
        leave_a_claim(second, "claim-2")
        leave_a_claim(second, "claim-3")
    with claim_directory(tmp_path) as heir:
        assert claim_ids(heir) == ["claim-1", "claim-2", "claim-3"]
        folder = Journal(heir).load()[2]
        assert folder.bundle.read_bytes() == b"model"
        assert folder.announcement is not None
        assert folder.announcement.event_id == "event-1"
    assert not list((tmp_path / "embedded-2" / "claims").iterdir())


def test_a_live_agent_keeps_what_is_its_own(tmp_path: Path) -> None:
    with claim_directory(tmp_path), claim_directory(tmp_path) as second:
        leave_a_claim(second, "claim-2")
        with claim_directory(tmp_path) as third:
            assert third.agent_id == "embedded-3"
            assert claim_ids(third) == []
        assert claim_ids(second) == ["claim-2"]


def test_only_agents_of_the_same_kind_are_inherited_from(tmp_path: Path) -> None:
    with open_directory(tmp_path, "gpu-box") as host:
        leave_a_claim(host, "claim-1")
    with claim_directory(tmp_path, prefix="embedded") as directory:
        assert claim_ids(directory) == []
    with open_directory(tmp_path, "gpu-box") as host:
        assert claim_ids(host) == ["claim-1"]


def test_a_claim_that_the_heir_has_already_stays_where_it_is(tmp_path: Path) -> None:
    with claim_directory(tmp_path) as first, claim_directory(tmp_path) as second:
        leave_a_claim(first, "same")
        leave_a_claim(second, "same")
        leave_a_claim(second, "other")
    with claim_directory(tmp_path) as heir:
        assert claim_ids(heir) == ["other", "same"]


def test_a_named_directory_that_is_in_use_is_an_error_that_says_so(tmp_path: Path) -> None:
    with open_directory(tmp_path, "gpu-box"), pytest.raises(AgentError, match="running as 'gpu-box'"):
        open_directory(tmp_path, "gpu-box")
    open_directory(tmp_path, "gpu-box").close()


def test_a_directory_that_is_removed_just_as_it_is_taken_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The moment in between: the file is open and not locked yet when somebody who has the lock cleans up."""
    flock, removed = fcntl.flock, []

    def remove_first(handle: int, operation: int) -> None:
        if not removed:
            removed.append(tmp_path / "embedded-1")
            shutil.rmtree(removed[0])
        flock(handle, operation)

    monkeypatch.setattr(fcntl, "flock", remove_first)
    with claim_directory(tmp_path) as directory:
        assert removed == [directory.path]
        assert directory.claims.is_dir()
        with claim_directory(tmp_path) as other:
            assert other.agent_id == "embedded-2"


@pytest.mark.skipif(sys.platform != "linux", reason="/proc is how to see open files")
def test_a_refused_or_closed_directory_leaves_no_file_open(tmp_path: Path) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    with open_directory(tmp_path, "gpu-box") as directory:
        with pytest.raises(AgentError):
            open_directory(tmp_path, "gpu-box")
        directory.close()
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_a_place_that_cannot_be_written_is_an_error_with_its_fix(tmp_path: Path) -> None:
    (tmp_path / "agents").write_text("not a directory")
    with pytest.raises(AgentError, match="KTRDR_HOME"):
        claim_directory(tmp_path / "agents")
