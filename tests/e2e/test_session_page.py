"""The session that anyone can paste, done as it stands, on a real broker."""

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ktrdr.backend.states import State
from tests.broker.node import PrivateNode
from tests.broker.ports import free_ports
from tests.e2e.deployment import Deployment
from tests.e2e.installation import MOMENTUM
from tests.e2e.page import Page


@pytest.fixture
def deployment(tmp_path: Path, private_node: PrivateNode) -> Iterator[Deployment]:
    with Deployment(tmp_path, private_node) as fresh:
        yield fresh


@pytest.mark.broker
@pytest.mark.timeout(400)
@pytest.mark.xdist_group("hosts")
@pytest.mark.skipif(not all(map(shutil.which, ("curl", "jq", "bash"))), reason="needs curl, jq and bash")
def test_the_session_prints_what_the_page_says(deployment: Deployment) -> None:
    page = Page("session.md")
    variables = {
        "KTRDR_BROKER_URL": deployment.url,
        "KTRDR_LISTEN": f"127.0.0.1:{free_ports(1)[0]}",
        "KTRDR_STRATEGIES_DIR": str(MOMENTUM.parent),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    printed = page.run(deployment.root, {**deployment.environment, **variables}, within_s=300)
    assert printed == page.promised
    assert all(operation.state is State.COMPLETED for operation in deployment.operations())
    assert len(deployment.versions()) == 6
    deployment.check_nothing_runs()
