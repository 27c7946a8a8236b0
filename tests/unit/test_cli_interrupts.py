"""Ctrl-C before a command has begun ends it, whatever it was in the middle of."""

import subprocess
import sys

_SWALLOWED = """
import os, signal, sys
from ktrdr.cli.interrupts import run_until_interrupted, until_begun

async def work(stop):
    os.kill(os.getpid(), signal.SIGINT)
    await stop.wait()

with until_begun():
    if "begun" in sys.argv:
        run_until_interrupted(work, on_interrupt=lambda: print("noticed"))
    else:
        try:
            os.kill(os.getpid(), signal.SIGINT)
            for _ in range(1000):
                pass
        except BaseException:  # as some libraries do while they are imported
            pass
print("went on")
"""


def _run(*arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-c", _SWALLOWED, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_it_is_not_lost_where_an_exception_would_be_swallowed() -> None:
    ended = _run()
    assert (ended.returncode, ended.stdout, ended.stderr) == (130, "", "Interrupted.\n")


def test_what_has_begun_ends_in_its_own_time() -> None:
    assert (ended := _run("begun")).returncode == 0, ended.stderr
    assert ended.stdout == "noticed\nwent on\n"
