"""The process that starts others for tests, and ends them."""

import sys
from pathlib import Path

import psutil

from tests.broker.guardian import Guardian
from tests.e2e.waiting import eventually


def test_the_exit_code_of_a_process_is_known_that_ended_before_the_next_was_started(tmp_path: Path) -> None:
    guardian = Guardian()
    try:
        command = [sys.executable, "-S", "-c", "raise SystemExit(3)"]
        first = guardian.start(command, {}, tmp_path / "log")
        has_ended = lambda: psutil.Process(first).status() == psutil.STATUS_ZOMBIE  # noqa: E731
        eventually(has_ended, within_s=60.0, otherwise="it has not ended")
        guardian.start(command, {}, tmp_path / "log")
        guardian.start(command, {}, tmp_path / "log")
        assert guardian.exit_code(first) == 3
    finally:
        guardian.close()
