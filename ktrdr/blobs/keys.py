"""Where stores that can be listed have a blob: ``ab/cdef…``, or below ``aside/`` on its way out."""

import re
from collections.abc import Callable
from datetime import datetime
from typing import TypeVar

from ktrdr.blobs.store import BlobEntry

T = TypeVar("T")

OWNER = "owner"
"""Who collects what is there."""
_ASIDE = "aside"
_KEY = re.compile(rf"({_ASIDE}/)?([0-9a-f]{{2}})/([0-9a-f]{{62}})", re.ASCII)


def key_of(sha256: str) -> str:
    """Return where a blob is."""
    return f"{sha256[:2]}/{sha256[2:]}"


def aside_key_of(sha256: str) -> str:
    """Return where a blob is once it is set aside."""
    return f"{_ASIDE}/{key_of(sha256)}"


def entry_at(path: str, size: int, modified: datetime) -> BlobEntry | None:
    """Return the blob that a listed path is; None: it is something else."""
    match = _KEY.fullmatch(path)
    if match is None:
        return None
    return BlobEntry(match[2] + match[3], size, modified, is_aside=match[1] is not None)


def read_at_either(sha256: str, read: Callable[[str], T]) -> T:
    """Read a blob where it is, also if it is set aside, or put back, at this very moment.

    Raises:
        FileNotFoundError: it is in neither place.
    """
    for key in (key_of(sha256), aside_key_of(sha256)):
        try:
            return read(key)
        except FileNotFoundError:
            continue
    return read(key_of(sha256))
