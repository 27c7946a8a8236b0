"""A disk that is really full after a mebibyte: the fixture ``small_disk`` of every test, and ``fill``."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

SMALL_DISK_BYTES = 1024 * 1024

# Mounts a file system that only this process and its /proc entry can see, and holds it until its input ends.
_HOLD = 'mount -t tmpfs -o size="$1" tmpfs "$2" && echo ready && read -r _'
_REMEDY = "Set KTRDR_TEST_SMALL_DISK to a directory on a disk of a few MB."


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """An empty directory on a file system of its own, of `SMALL_DISK_BYTES`; gone after the test.

    A tmpfs is mounted in a mount namespace of a child process, as root or, where Linux lets users make user
    namespaces, as anyone; ``/proc`` leads there. Where neither is possible (macOS, some containers), name a
    directory on a small file system in ``KTRDR_TEST_SMALL_DISK``; without one the test is skipped and says
    so.
    """
    given = os.environ.get("KTRDR_TEST_SMALL_DISK")
    if given is not None:
        yield from _given(Path(given))
        return
    if not sys.platform.startswith("linux"):
        pytest.skip(f"No full disk to test with. {_REMEDY}")
    mount_point = tmp_path / "small-disk"
    mount_point.mkdir()
    user = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    holder = subprocess.Popen(
        ["unshare", *user, "--mount", "sh", "-c", _HOLD, "sh", str(SMALL_DISK_BYTES), str(mount_point)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert holder.stdout is not None
        assert holder.stderr is not None
        if holder.stdout.readline() != "ready\n":
            pytest.skip(f"No full disk to test with: {holder.stderr.read().strip()}. {_REMEDY}")
        yield Path(f"/proc/{holder.pid}/root{mount_point}")
    finally:
        holder.communicate()


def fill(directory: Path, leave_bytes: int = 0) -> Path:
    """Write a file until the disk is full, then shorten it to leave some bytes free, and return it."""
    path = directory / "filler"
    block = b"\0" * 4096
    with path.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(block)
        except OSError:
            file.truncate(max(file.tell() - leave_bytes, 0))
    return path


def _given(directory: Path) -> Iterator[Path]:
    inside = directory / f"ktrdr-{os.getpid()}"
    inside.mkdir()
    try:
        yield inside
    finally:
        shutil.rmtree(inside)
