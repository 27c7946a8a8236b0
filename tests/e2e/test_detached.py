"""``ktrdr train --detach``: the training goes on in a process of its own, also without the terminal."""

import os
import pty
import signal
import sys

import pytest

from ktrdr.backend.states import State
from tests.e2e.installation import MOMENTUM, Installation, epochs
from tests.e2e.waiting import eventually


def has_ended(installation: Installation) -> bool:
    """Return whether the only operation has ended, and the worker with it."""
    return installation.operation().state.terminal and not installation.processes()


def read_until(terminal: int, words: bytes) -> None:
    """Read what is written to a terminal up to these words."""
    shown = b""
    while words not in shown:
        try:
            shown += os.read(terminal, 4096)
        except OSError:  # what Linux says for the end of a terminal's input
            pytest.fail(f"the command ended and showed only {shown.decode(errors='replace')!r}")


def test_a_detached_training_returns_at_once_and_its_worker_finishes_it(installation: Installation) -> None:
    train = installation.train(*epochs(30), "--detach").succeed()
    operation = installation.operation()
    assert train.stdout == f"{operation.operation_id}\n"
    assert f"ktrdr ops watch {operation.operation_id}" in train.stderr
    assert not operation.state.terminal

    watched = installation.run("ops", "watch", operation.operation_id).succeed()
    assert "Trained eurusd_momentum/EURUSD_1h_v1" in watched.stdout
    eventually(lambda: has_ended(installation), within_s=60, otherwise=installation.describe)
    installation.check_at_rest(models=1)
    (log,) = installation.home.glob("logs/work-*.log")
    assert f"log: {log}" in train.stderr.replace("\n", "")
    assert "[8/8] Packaging the model" in log.read_text()
    assert "1 operation finished; nothing is left to do." in log.read_text()


def test_a_detached_training_survives_the_end_of_its_terminal(installation: Installation) -> None:
    shell, terminal = pty.fork()
    if shell == 0:
        os.chdir(installation.root)
        command = [sys.executable, "-m", "ktrdr.cli.main", "train", str(MOMENTUM), "--detach", *epochs(30)]
        os.execve(sys.executable, command, installation.environment)
    read_until(terminal, b"ktrdr ops watch")
    os.close(terminal)  # the kernel sends SIGHUP to the whole session
    os.waitpid(shell, 0)
    eventually(lambda: has_ended(installation), within_s=60, otherwise=installation.describe)
    installation.check_at_rest(models=1)


@pytest.mark.long
def test_a_detached_worker_that_is_told_to_end_leaves_the_training_to_the_next(
    installation: Installation,
) -> None:
    installation.train(*epochs(2000), "--detach").succeed()
    eventually(lambda: installation.has_reached_epoch(1), within_s=60, otherwise=installation.describe)
    for process in installation.processes():
        process.send_signal(signal.SIGTERM)
    installation.check_nothing_runs()
    assert not installation.operation().state.terminal
    operation_id = installation.operation().operation_id
    listed = installation.run("ops", "list").succeed()
    assert "(interrupted)" in listed.stdout
    installation.run("ops", "cancel", operation_id).succeed()
    assert installation.operation().state is State.CANCELLED
    installation.run("work").succeed()
    installation.check_at_rest(models=0)
