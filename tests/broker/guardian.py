"""Processes and a directory that are gone when this process is gone, even if it was killed."""

import json
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

_SCRIPT = Path(__file__).with_name("guardian_process.py")
_CLOSED_WITHIN_S = 30.0


class Guardian:
    """Starts processes on behalf of this one, in a temporary `directory`.

    A small process of its own does the work: `close`, or the end of this process by whatever cause, makes it
    kill everything and remove the directory.

    Args:
        of: What it is for; the name of the directory says so.
        user: Who the processes are run as, and whose the directory is; None for the user of this process.
        last_signal: Sent to processes first when all is over, if they have something to clear away.
    """

    def __init__(
        self, of: str = "rabbitmq", *, user: str | None = None, last_signal: int = signal.SIGKILL
    ) -> None:
        self._lock = threading.Lock()
        self._asked = 0
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", _SCRIPT, of, str(int(last_signal)), user or ""],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self.directory = Path(self._read()["directory"])

    def start(self, command: Sequence[str | Path], environment: Mapping[str, str], log: Path) -> int:
        """Start a process that leads a group of its own and appends to that log; return its id."""
        return int(
            self._ask(
                do="start", command=[str(word) for word in command], environment=environment, log=str(log)
            )["pid"]
        )

    def end(self, pid: int, signal_number: int = signal.SIGKILL, *, within_s: float = 0.0) -> int:
        """Send a signal to the group, kill what is left of it after that time, and return the exit code.

        All of the group is gone when this returns.
        """
        return int(self._ask(do="end", pid=pid, signal_number=signal_number, within_s=within_s)["code"])

    def exit_code(self, pid: int) -> int | None:
        """Return how the process ended (minus the signal, if it was killed), or None while it runs."""
        code: int | None = self._ask(do="poll", pid=pid)["code"]
        return code

    def close(self) -> None:
        """Kill everything, remove the directory, and return when that is done."""
        with self._lock:
            assert self._process.stdin is not None
            assert self._process.stdout is not None
            self._process.stdin.close()
            self._process.wait(_CLOSED_WITHIN_S)
            self._process.stdout.close()

    def _ask(self, **question: object) -> dict[str, Any]:
        with self._lock:
            assert self._process.stdin is not None
            self._asked += 1
            self._process.stdin.write(json.dumps({"number": self._asked, **question}) + "\n")
            self._process.stdin.flush()
            answer = self._read()
        if "error" in answer:
            raise OSError(answer["error"])
        return answer

    def _read(self) -> dict[str, Any]:
        """Read the answer to the last question: an interrupt may have left that to another unread."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            answer: dict[str, Any] = json.loads(line)
            if answer["number"] == self._asked:
                return answer
        raise BrokenPipeError("The guardian of private processes is gone")
