"""What an agent could not read: kept for a person to look at, for so long, and only so much of it."""

import os
import shutil
from datetime import datetime
from pathlib import Path

MAX_KEPT = 100
"""The newest."""


def set_aside(path: Path, directory: Path, name: str) -> Path:
    """Move a file or a folder to where such things are kept, and return its place there.

    Args:
        path: what could not be read.
        directory: where such things are kept.
        name: what it is called there, with a number if something else is called so already.

    Raises:
        OSError: it cannot be moved, and is where it was.
    """
    kept, number = directory / name, 1
    while os.path.lexists(kept):
        number += 1
        kept = directory / f"{name}-{number}"
    path.rename(kept)
    # From now on it is kept, however old it is.
    os.utime(kept, follow_symlinks=False)
    _remove_all(_by_age(directory)[:-MAX_KEPT])
    return kept


def set_aside_before(directory: Path, before: datetime | None) -> list[tuple[Path, int]]:
    """Return what was set aside before that time, with its size; None: nothing is too old."""
    if before is None or not directory.is_dir():
        return []
    return [
        (path, size_of(path)) for path in _by_age(directory) if path.lstat().st_mtime < before.timestamp()
    ]


def forget(directory: Path, before: datetime | None) -> int:
    """Remove what was set aside before that time, and return how many things that were."""
    old = [path for path, _ in set_aside_before(directory, before)]
    _remove_all(old)
    return len(old)


def size_of(path: Path) -> int:
    """Return the bytes of a file, or of all that is in a folder."""
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(each.lstat().st_size for each in files)


def remove(path: Path) -> None:
    """Remove a file or a folder, as far as that is possible."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _by_age(directory: Path) -> list[Path]:
    return sorted(directory.iterdir(), key=lambda path: (path.lstat().st_mtime_ns, path.name))


def _remove_all(paths: list[Path]) -> None:
    for path in paths:
        remove(path)
