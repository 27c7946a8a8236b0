"""The small disk that other tests fill is really one."""

import errno
import shutil
from pathlib import Path

import pytest

from tests.small_disk import SMALL_DISK_BYTES, fill


def test_a_small_disk_is_empty_and_small(small_disk: Path) -> None:
    assert list(small_disk.iterdir()) == []
    assert shutil.disk_usage(small_disk).free <= 16 * SMALL_DISK_BYTES


def test_a_full_disk_takes_no_more(small_disk: Path) -> None:
    fill(small_disk)
    with pytest.raises(OSError, match="No space left") as refused:
        (small_disk / "one more").write_bytes(b"x" * 4096)
    assert refused.value.errno == errno.ENOSPC


def test_what_is_left_free_can_be_written(small_disk: Path) -> None:
    fill(small_disk, leave_bytes=64 * 1024)
    (small_disk / "fits").write_bytes(b"x" * 32 * 1024)
    with pytest.raises(OSError, match="No space left"):
        (small_disk / "does not").write_bytes(b"x" * 64 * 1024)
