"""The process that starts a private broker's processes, and leaves nothing of them when it is left alone.

A script of its own, so that it outlives whoever started it, by whatever that died: its standard input closes
then, and it kills what it has started and removes the directory. It reads one JSON object per line and
answers each with one; see `Guardian` for who asks.
"""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

_POLL_S = 0.005
_processes: dict[int, subprocess.Popen[bytes]] = {}


def main() -> None:
    for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)
    os.chdir("/")  # hold nobody's directory
    directory = tempfile.mkdtemp(prefix="ktrdr-rabbitmq-")
    try:
        _answer({"directory": directory})
        for line in sys.stdin:
            try:
                _answer(_do(**json.loads(line)))
            except OSError as error:
                _answer({"error": str(error)})
    finally:
        for pid in reversed(_processes):
            _end(pid, signal.SIGKILL, within_s=0)
        shutil.rmtree(directory, ignore_errors=True)


def _answer(answer: dict[str, Any]) -> None:
    # Nobody may be left to read it.
    with contextlib.suppress(BrokenPipeError):
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


def _do(do: str, **arguments: Any) -> dict[str, Any]:
    match do:
        case "start":
            return {"pid": _start(**arguments)}
        case "end":
            return {"code": _end(**arguments)}
        case _:
            return {"code": _processes[arguments["pid"]].poll()}


def _start(command: list[str], environment: dict[str, str], log: str) -> int:
    with Path(log).open("ab") as output:
        process = subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd=Path(log).parent,
            start_new_session=True,
        )
    _processes[process.pid] = process
    return process.pid


def _end(pid: int, signal_number: int, within_s: float) -> int:
    """Send a signal to the process group; kill what is left after that time, and wait until all is gone."""
    process = _processes[pid]
    _signal_group(pid, signal_number)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(within_s)
    while _signal_group(pid, signal.SIGKILL):
        process.poll()
        time.sleep(_POLL_S)
    return process.wait()


def _signal_group(pid: int, signal_number: int) -> bool:
    """Return whether there is any such process."""
    try:
        os.killpg(pid, signal_number)
    except (ProcessLookupError, PermissionError):  # macOS says the latter of a group of zombies
        return False
    return True


if __name__ == "__main__":
    main()
