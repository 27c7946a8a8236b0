"""Fixtures of the tests that use ktrdr as people do."""

import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.installation import Installation, epochs


@pytest.fixture
def installation(tmp_path: Path) -> Iterator[Installation]:
    """A fresh installation; what runs there at the end of the test is killed."""
    with Installation(tmp_path) as fresh:
        yield fresh


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The hash of the weights of sixty epochs under seed 7 that nobody has disturbed."""
    return _weights_of(60, tmp_path_factory)


@pytest.fixture(scope="session")
def undisturbed_briefly(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Likewise, of two epochs."""
    return _weights_of(2, tmp_path_factory)


def _weights_of(number: int, tmp_path_factory: pytest.TempPathFactory) -> str:
    # Under xdist the directory above is that of the whole run: the first worker trains, and the others read.
    directory = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        directory = directory.parent
    with (directory / f"undisturbed-{number}").open("a+") as known:
        fcntl.flock(known, fcntl.LOCK_EX)
        known.seek(0)
        if sha256 := known.read():
            return sha256
        with Installation(tmp_path_factory.mktemp("undisturbed")) as quiet:
            quiet.train(*epochs(number)).succeed()
            quiet.check_at_rest(models=1)
            known.write(quiet.sha256(*quiet.versions()))
        known.seek(0)
        return known.read()
