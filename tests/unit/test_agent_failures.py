"""From exceptions to the causes that the retry policy is keyed on."""

import errno

import pytest
import torch

from host_agent.endings import Cancelled, Failed
from host_agent.failures import ending_of
from ktrdr.errors import (
    BlobCorruptError,
    BlobMissingError,
    DataError,
    DivergedError,
    OutOfMemoryError,
    PluginError,
    Problem,
    RunnerCrashedError,
    StorageFullError,
    StrategyError,
    TrainingCancelledError,
    UnknownNameError,
)
from ktrdr.events.causes import FailureCause


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (StrategyError("a.yaml", [Problem("indicators", "is missing")]), FailureCause.STRATEGY_ERROR),
        (PluginError("It lacks compute."), FailureCause.STRATEGY_ERROR),
        (UnknownNameError("indicator", "rsj", ["rsi"], "rsi"), FailureCause.STRATEGY_ERROR),
        (DataError("too few bars"), FailureCause.DATA_ERROR),
        (DivergedError(), FailureCause.TRAINING_DIVERGED),
        (MemoryError(), FailureCause.OUT_OF_MEMORY),
        (OutOfMemoryError(), FailureCause.OUT_OF_MEMORY),
        (torch.OutOfMemoryError("CUDA out of memory"), FailureCause.OUT_OF_MEMORY),
        (OSError(errno.ENOSPC, "No space left on device"), FailureCause.DISK_FULL),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), FailureCause.DISK_FULL),
        (StorageFullError(), FailureCause.DISK_FULL),
        (BlobMissingError(), FailureCause.BLOB_UNAVAILABLE),
        (BlobCorruptError(), FailureCause.BLOB_UNAVAILABLE),
        (RunnerCrashedError(), FailureCause.RUNNER_CRASHED),
        (OSError(errno.EIO, "Input/output error"), FailureCause.INTERNAL_ERROR),
        (ZeroDivisionError("division by zero"), FailureCause.INTERNAL_ERROR),
        (SystemExit(3), FailureCause.INTERNAL_ERROR),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else str(value),
)
def test_each_exception_has_its_cause(error: BaseException, cause: FailureCause) -> None:
    ending = ending_of(error, epoch=4)
    assert isinstance(ending, Failed)
    assert ending.cause is cause
    assert ending.epoch == 4
    assert ending.message


def test_torch_without_memory_on_the_cpu_is_out_of_memory() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60, dtype=torch.uint8)
    ending = ending_of(caught.value)
    assert isinstance(ending, Failed)
    assert ending.cause is FailureCause.OUT_OF_MEMORY


def test_a_cancellation_is_no_failure() -> None:
    assert ending_of(TrainingCancelledError(epoch=7), epoch=3) == Cancelled(epoch=7)


def test_what_is_wrong_with_the_strategy_is_told_without_a_traceback() -> None:
    ending = ending_of(StrategyError("a.yaml", [Problem("indicators.x", "is missing", line=3)]))
    assert isinstance(ending, Failed)
    assert ending.message == "a.yaml:3:1: indicators.x: is missing"
    assert ending.traceback is None


def test_a_defect_is_told_with_its_type_and_the_end_of_its_traceback() -> None:
    def recurse(depth: int) -> None:
        if depth == 0:
            raise KeyError("epoch" * 10_000)
        recurse(depth - 1)

    with pytest.raises(KeyError) as caught:
        recurse(100)
    ending = ending_of(caught.value)
    assert isinstance(ending, Failed)
    assert ending.message.startswith("KeyError: ")
    assert ending.traceback is not None
    assert "epoch" in ending.traceback
