"""What everybody who locks a file that others may remove has to ask."""

import os
from pathlib import Path


def is_at(path: Path, descriptor: int, *, follow_symlinks: bool = True) -> bool:
    """Return whether an open file still is what is at the path: else who locks it has locked nothing."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat(follow_symlinks=follow_symlinks))
    except FileNotFoundError:
        return False
