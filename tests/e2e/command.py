"""One command that was started: what it says, and how it ends."""

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import psutil
import pytest

from tests.e2e.waiting import eventually

_LIMIT_S = 60.0


class Command:
    """A process, running or ended. What it prints goes to files, so that it never waits for a reader.

    Args:
        process: leads a session of its own.
        output: where it prints, but for the suffix: ``.out`` and ``.err``.
        describe: tells what there is when it does not do as it should.
    """

    def __init__(self, process: "subprocess.Popen[bytes]", output: Path, describe: Callable[[], str]) -> None:
        self.process = process
        self._output = output
        self._describe = describe

    @property
    def stdout(self) -> str:
        """What it has printed so far."""
        return self._output.with_suffix(".out").read_text(errors="replace")

    @property
    def stderr(self) -> str:
        """What it has said so far."""
        return self._output.with_suffix(".err").read_text(errors="replace")

    def json(self) -> Any:
        """Return what it printed, read as JSON."""
        return json.loads(self.stdout)

    def wait(self, within_s: float = _LIMIT_S) -> int:
        """Wait for its end and return its exit status: minus the number of the signal, if one killed it."""
        try:
            return self.process.wait(within_s)
        except subprocess.TimeoutExpired:
            pytest.fail(f"it still runs after {within_s:g} s\n{self._describe()}", pytrace=False)

    def succeed(self) -> Self:
        """Wait for its end, which must be a good one."""
        assert self.wait() == 0, self._describe()
        return self

    def until(self, condition: Callable[[], object], what: str) -> Self:
        """Wait for something to come true while it runs."""
        came = False

        def came_or_ended() -> bool:
            nonlocal came
            has_ended = self.process.poll() is not None
            came = bool(condition())
            return came or has_ended

        eventually(came_or_ended, within_s=_LIMIT_S, otherwise=lambda: f"{what}\n{self._describe()}")
        assert came, f"it ended before {what}\n{self._describe()}"
        return self

    def until_said(self, text: str) -> Self:
        """Wait until it has said that on its standard error."""
        return self.until(lambda: text in self.stderr, f"it said '{text}'")

    def runner(self) -> psutil.Process:
        """Return its runner process, as soon as it has one."""
        self.until(self._runners, "it had a runner")
        return self._runners()[0]

    def has_loaded(self, library: str) -> bool:
        """Return whether it has loaded an extension module of that Python package."""
        try:
            return any(
                f"/{library}" in found.path for found in psutil.Process(self.process.pid).memory_maps()
            )
        except psutil.Error:
            return False

    def _runners(self) -> list[psutil.Process]:
        children = psutil.Process(self.process.pid).children(recursive=True)
        return [child for child in children if "host_agent.runner" in command_line(child)]

    def send(self, number: int) -> None:
        """Send a signal to the process alone."""
        self.process.send_signal(number)

    def send_to_group(self, number: int) -> None:
        """Send a signal to its process group, as a terminal does."""
        os.killpg(self.process.pid, number)


def command_line(process: psutil.Process) -> str:
    """Return the command line of a process; empty if it has ended."""
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""
