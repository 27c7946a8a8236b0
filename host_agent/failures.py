"""From exceptions to causes, on which the retry policy is keyed."""

import errno
import traceback

from host_agent.endings import Cancelled, Ending, Failed
from ktrdr.errors import (
    BlobError,
    DataError,
    DivergedError,
    PluginError,
    RunnerCrashedError,
    StorageFullError,
    StrategyError,
    TrainingCancelledError,
    UnknownNameError,
)
from ktrdr.events.causes import FailureCause

_DISK_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


def ending_of(error: BaseException, *, epoch: int = 0) -> Ending:
    """Return how an attempt ends that raised this, after so many complete epochs."""
    if isinstance(error, TrainingCancelledError):
        return Cancelled(epoch=error.epoch)
    cause = cause_of(error)
    defect = cause is FailureCause.INTERNAL_ERROR
    return Failed(
        cause=cause,
        message=str(error) if str(error) and not defect else f"{type(error).__name__}: {error}",
        traceback="".join(traceback.format_exception(error)) if defect else None,
        epoch=epoch,
    )


def cause_of(error: BaseException) -> FailureCause:
    """Return the cause; what is not foreseen is a defect."""
    match error:
        case StrategyError() | UnknownNameError() | PluginError():
            return FailureCause.STRATEGY_ERROR
        case DataError():
            return FailureCause.DATA_ERROR
        case DivergedError():
            return FailureCause.TRAINING_DIVERGED
        case StorageFullError():
            return FailureCause.DISK_FULL
        case BlobError():
            return FailureCause.BLOB_UNAVAILABLE
        case RunnerCrashedError():
            return FailureCause.RUNNER_CRASHED
        case MemoryError():
            return FailureCause.OUT_OF_MEMORY
        case OSError() if error.errno in _DISK_FULL:
            return FailureCause.DISK_FULL
        case RuntimeError() if _is_torch_out_of_memory(error):
            return FailureCause.OUT_OF_MEMORY
        case _:
            return FailureCause.INTERNAL_ERROR


def _is_torch_out_of_memory(error: RuntimeError) -> bool:
    # By name and words, because the agent maps errors too and never imports torch. On the CPU there is no
    # class of its own: "DefaultCPUAllocator: can't allocate memory: you tried to allocate … bytes".
    return type(error).__name__ == "OutOfMemoryError" or "allocate memory" in str(error)
