"""No runner outlives its agent."""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def die_with_parent(parent_pid: int) -> None:
    """Have the kernel kill this process when its parent dies; exits at once if that has happened.

    Linux only. Elsewhere, and on Linux too, the end of file on the pipe does the same as long as this process
    can run Python code; the kernel does it also while an extension holds the interpreter or it is stopped.
    """
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), "prctl")
    if os.getppid() != parent_pid:
        os._exit(0)
