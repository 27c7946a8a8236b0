"""A disk that is really full after a few megabytes: the fixture ``small_disk``, and ``fill``."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

SMALL_DISK_BYTES = 8 * 1024 * 1024

_GIVEN = "KTRDR_TEST_SMALL_DISK"
_IN_NAMESPACE = "KTRDR_TEST_IN_NAMESPACE"
_AS_ROOT = ("unshare", "--user", "--map-root-user", "--mount")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """An empty directory on a file system of its own, of `SMALL_DISK_BYTES`; gone after the test.

    It is a tmpfs, which root can mount. For others the test is run again in a namespace of its own where they
    are root (see `run_as_root_of_a_namespace`). Where Linux does not allow that, and on other systems, name a
    directory on a small file system in ``KTRDR_TEST_SMALL_DISK``; without one the test is skipped and says
    why.
    """
    directory = tmp_path / "small-disk"
    directory.mkdir()
    if given := os.environ.get(_GIVEN):
        inside = Path(given) / f"ktrdr-{os.getpid()}"
        inside.mkdir()
        yield inside
        shutil.rmtree(inside)
    elif not (problem := _mount(directory)):
        yield directory
        subprocess.run(["umount", "--lazy", directory], check=True)
    elif _may_have_namespace():
        yield directory
    else:
        pytest.skip(
            f"No full disk to test with ({problem}). Set {_GIVEN} to a directory on a disk of a few MB."
        )


def run_as_root_of_a_namespace(item: pytest.Function) -> bool:
    """Run a test that has the fixture in a process that may mount, if this one may not; return whether."""
    if "small_disk" not in item.fixturenames or os.environ.get(_GIVEN):
        return False
    if os.path.ismount(item.funcargs["small_disk"]):
        return False
    again = subprocess.run(
        [*_AS_ROOT, sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", item.nodeid],
        cwd=item.config.rootpath,
        env={**os.environ, _IN_NAMESPACE: "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    if again.returncode != 0:
        pytest.fail(again.stdout + again.stderr, pytrace=False)
    return True


def fill(directory: Path, leave_bytes: int = 0) -> Path:
    """Write a file until the disk is full, then shorten it to leave some bytes free, and return it."""
    path = directory / "filler"
    with path.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(b"\0" * 4096)
        except OSError:
            file.truncate(max(file.tell() - leave_bytes, 0))
    return path


def _mount(directory: Path) -> str:
    """Mount a small tmpfs there and return nothing, or why that is not possible."""
    if not sys.platform.startswith("linux"):
        return "only Linux has disks in memory for tests to mount"
    command = ["mount", "-t", "tmpfs", "-o", f"size={SMALL_DISK_BYTES}", "tmpfs", directory]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    return result.stderr.strip() if result.returncode else ""


def _may_have_namespace() -> bool:
    if _IN_NAMESPACE in os.environ or not sys.platform.startswith("linux"):
        return False
    return subprocess.run([*_AS_ROOT, "true"], capture_output=True, check=False).returncode == 0
