"""The process that starts a private server's processes, and leaves nothing of them when it is left alone.

A script of its own, so that it outlives whoever started it, by whatever that died: its standard input closes
then, and it kills what it has started and removes the directory. It reads one JSON object per line and
answers each with one; see `Guardian` for who asks.
"""

import contextlib
import ctypes
import json
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

_POLL_S = 0.005
_ORPHANS_END_WITHIN_S = 30.0
_LAST_SIGNAL_WITHIN_S = 10.0
_PR_SET_CHILD_SUBREAPER = 36

# Kept, since `subprocess` reaps those that are forgotten, and their exit codes would be lost.
_started: dict[int, subprocess.Popen[bytes]] = {}
_exit_codes: dict[int, int] = {}


def main() -> None:
    for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)
    if sys.platform == "linux":
        # The helpers of a dead node become children of this process, which can tell when they are gone.
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    os.chdir("/")
    of, last_signal, user = sys.argv[1:]
    directory = tempfile.mkdtemp(prefix=f"ktrdr-{of}-")
    if user:
        shutil.chown(directory, user)
    try:
        _answer(0, {"directory": directory})
        for line in sys.stdin:
            question = json.loads(line)
            number = question.pop("number")
            try:
                _answer(number, _do(user=user, **question))
            except OSError as error:
                _answer(number, {"error": str(error)})
    finally:
        for pid in reversed(_started):
            _end(pid, int(last_signal), within_s=_LAST_SIGNAL_WITHIN_S)
        _wait_for_orphans()
        shutil.rmtree(directory, ignore_errors=True)


def _answer(number: int, answer: dict[str, Any]) -> None:
    # Nobody may be left to read it.
    with contextlib.suppress(BrokenPipeError):
        sys.stdout.write(json.dumps({"number": number, **answer}) + "\n")
        sys.stdout.flush()


def _do(do: str, user: str, **arguments: Any) -> dict[str, Any]:
    match do:
        case "start":
            return {"pid": _start(user=user, **arguments)}
        case "end":
            return {"code": _end(**arguments)}
        case _:
            return {"code": _exit_code(**arguments)}


def _start(command: list[str], environment: dict[str, str], log: str, user: str) -> int:
    account = pwd.getpwnam(user) if user else None
    with Path(log).open("ab") as output:
        process = subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd=Path(log).parent,
            start_new_session=True,
            user=account and account.pw_uid,
            group=account and account.pw_gid,
            extra_groups=account and [],
        )
    _started[process.pid] = process
    return process.pid


def _end(pid: int, signal_number: int, within_s: float) -> int:
    """Send a signal to the process group; kill what is left after that time, and wait until all is gone."""
    if _exit_code(pid) is None:
        _signal_group(pid, signal_number)
    end = time.monotonic() + within_s
    while _exit_code(pid) is None and time.monotonic() < end:
        time.sleep(_POLL_S)
    # Both each time: the group exists until its dead are reaped.
    while any([_signal_group(pid, signal.SIGKILL), _exit_code(pid) is None]):
        time.sleep(_POLL_S)
    return _exit_codes[pid]


def _signal_group(pid: int, signal_number: int) -> bool:
    """Return whether there is any such process."""
    try:
        os.killpg(pid, signal_number)
    except (ProcessLookupError, PermissionError):  # macOS says the latter of a group of zombies
        return False
    return True


def _exit_code(pid: int) -> int | None:
    _reap()
    return _exit_codes.get(pid)


def _reap() -> bool:
    """Take note of who has ended, and return whether there is still somebody."""
    with contextlib.suppress(ChildProcessError):
        while (ended := os.waitpid(-1, os.WNOHANG))[0]:
            pid, status = ended
            _exit_codes[pid] = os.waitstatus_to_exitcode(status)
        return True
    return False


def _wait_for_orphans() -> None:
    """Wait for the helpers of dead nodes, which end by themselves."""
    end = time.monotonic() + _ORPHANS_END_WITHIN_S
    while _reap() and time.monotonic() < end:
        time.sleep(_POLL_S)


if __name__ == "__main__":
    main()
