"""Servers in Docker."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

_STOPPED_WITHIN_S = 30.0


@contextmanager
def container(service: str) -> Iterator[str | None]:
    """Run a service of `docker_process`, and yield its URL: None if the engine cannot, as without image."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.broker.docker_process", service],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    try:
        yield process.stdout.readline().strip() or None
    finally:
        process.communicate(timeout=_STOPPED_WITHIN_S)
