"""Files that are there, whole, after a power loss; or not at all."""

import contextlib
import os
import uuid
from pathlib import Path


def write_durably(path: Path, data: bytes) -> None:
    """Write a file and force it to the disk; replaces what was there.

    Raises:
        OSError: nothing has changed at ``path``, and nothing is left behind.
    """
    write_whole(path, data)
    sync_directory(path.parent)


def write_whole(path: Path, data: bytes, *, synced: bool = True) -> None:
    """Write a file under another name, and rename it; replaces what was there.

    Args:
        path: where it is to be; after a loss of power, only once its directory is synced too.
        data: its content.
        synced: False: after a loss of power it may be there and be empty.

    Raises:
        OSError: nothing has changed at ``path``, and nothing is left behind.
    """
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        with temporary.open("xb") as file:
            file.write(data)
            if synced:
                file.flush()
                os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


def sync_directory(directory: Path) -> None:
    """Force the names in a directory to the disk."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
