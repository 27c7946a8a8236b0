"""How much memory a training took, and what happens when there is too little."""

import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from ktrdr.errors import OutOfMemoryError

_CLEAR_REFS = Path("/proc/self/clear_refs")
_STATUS = Path("/proc/self/status")


def reset_peak_memory() -> None:
    """Start the measurement anew; where the system cannot, the peak is that of the process's whole life."""
    try:
        _CLEAR_REFS.write_text("5")
    except OSError:
        return


def peak_memory_bytes() -> int:
    """Return the highest resident memory of this process since `reset_peak_memory`."""
    try:
        status = _STATUS.read_text()
    except OSError:
        status = ""
    for line in status.splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


@contextmanager
def out_of_memory_as_error() -> Iterator[None]:
    """Translate torch's and NumPy's errors of that kind to `OutOfMemoryError`."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        # On the CPU torch has no class for it: "DefaultCPUAllocator: can't allocate memory: you tried to …".
        known = isinstance(error, MemoryError | torch.OutOfMemoryError)
        if not known and "allocate memory" not in str(error):
            raise
        raise OutOfMemoryError(
            f"There is not enough memory: {error}",
            fix="Use a smaller network or batch size, or fewer bars.",
        ) from error
