"""Agents on other machines, as far as the network can tell, and cables that are pulled."""

import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

from ktrdr.backend.records import HistoryKind
from ktrdr.backend.states import State
from tests.broker.node import PrivateNode
from tests.e2e.deployment import Deployment
from tests.e2e.installation import epochs
from tests.e2e.own_network import own_network
from tests.e2e.waiting import eventually

pytestmark = [
    pytest.mark.broker,
    pytest.mark.fault,
    pytest.mark.long,
    pytest.mark.xdist_group("hosts"),
    pytest.mark.timeout(400),
]


def test_a_training_survives_that_its_agents_cable_is_pulled_for_longer_than_its_lease(
    tmp_path: Path, private_node: PrivateNode
) -> None:
    with Deployment(tmp_path, private_node) as deployment, ExitStack() as stack:
        deployment.serve()
        networks = {name: stack.enter_context(own_network(deployment.url)) for name in ("alpha", "beta")}
        agents = {
            name: deployment.start_process(
                *(*network.prefix, sys.executable, "-m", "ktrdr.cli.main", "agent"),
                *("--name", name, "--home", deployment.agent_home(name)),
                KTRDR_BROKER_URL=network.url,
                KTRDR_BLOB_STORE=str(deployment.settings.blobs_dir),
            )
            for name, network in networks.items()
        }
        for name, agent in agents.items():
            agent.until(lambda name=name: name in deployment.agents(), f"the backend has heard of {name}")
        deployment.submit(*epochs(150))
        eventually(lambda: deployment.has_reached_epoch(1), within_s=60, otherwise=deployment.describe)
        first = str(deployment.operation().agent_id)

        networks[first].pull()
        eventually(
            lambda: any(entry.kind is HistoryKind.LEASE_EXPIRED for entry in deployment.history()),
            within_s=60,
            otherwise=deployment.describe,
        )
        agents[first].until_said("the broker cannot be reached; training goes on")
        networks[first].plug()

        deployment.wait_for_all()
        assert deployment.operation().state is State.COMPLETED
        assert len(deployment.versions()) == 1
        # Who was cut off is heard again, and nobody is left with a run or a result that nobody wants.
        agents[first].until_said("the broker can be reached again")
        eventually(lambda: not deployment.claims(), within_s=60, otherwise=deployment.describe)
        eventually(
            lambda: all(agent.slots_busy == 0 for agent in deployment.agents().values()),
            within_s=60,
            otherwise=deployment.describe,
        )
        deployment.wait_for_empty_queues()
