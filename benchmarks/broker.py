"""The broker that a run of the benchmarks measures on, and the processes that take part in it."""

import atexit
import os
import signal
import sys
import time
from collections.abc import Mapping
from contextlib import ExitStack
from functools import cache
from pathlib import Path

from benchmarks.sample import ROOT
from tests.broker.broker import any_broker
from tests.broker.guardian import Guardian

READY = "ready"
"""What a process writes on a line of its own when it can be measured."""
_READY_WITHIN_S = 60.0


@cache
def broker_url() -> str:
    """Return where the broker is; the first call starts it, the end of the run stops it."""
    running = ExitStack()
    atexit.register(running.close)
    return running.enter_context(any_broker()).url


class Processes:
    """Other processes that take part in a measurement; gone when this one is, however it ends."""

    def __init__(self) -> None:
        self._guardian = Guardian()
        self.directory = self._guardian.directory
        """Temporary, for whatever belongs to the measurement."""
        self._logs: dict[int, Path] = {}

    def __enter__(self) -> "Processes":
        return self

    def __exit__(self, *_: object) -> None:
        self._guardian.close()

    def python(self, *arguments: str, environment: Mapping[str, str] | None = None) -> int:
        """Start a Python program; return its process id."""
        log = self.directory / f"{len(self._logs)}.log"
        log.touch()
        chosen = {**os.environ, **(environment or {}), "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
        pid = self._guardian.start([sys.executable, *arguments], chosen, log)
        self._logs[pid] = log
        return pid

    def wait_ready(self, *pids: int) -> None:
        """Return when all of them have said that they are."""
        deadline = time.monotonic() + _READY_WITHIN_S
        for pid in pids:
            while READY not in self.said(pid).splitlines():
                if self._guardian.exit_code(pid) is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"A process did not get ready: {self.said(pid)[-2000:]}")
                time.sleep(0.02)

    def said(self, pid: int) -> str:
        """Return what a process has written."""
        return self._logs[pid].read_text(errors="replace")

    def end(self, pid: int, signal_number: int = signal.SIGTERM, *, within_s: float = 10.0) -> None:
        """End a process, and what it has started."""
        self._guardian.end(pid, signal_number, within_s=within_s)
