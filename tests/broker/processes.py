"""What a private broker has running."""

from pathlib import Path

import psutil


def processes_of(directory: Path) -> list[psutil.Process]:
    """Return the processes that live in the temporary directory of a private broker."""
    return [process for process in psutil.process_iter() if _home(process).startswith(str(directory))]


def _home(process: psutil.Process) -> str:
    try:
        return str(process.environ().get("HOME", ""))
    except psutil.Error:
        return ""
