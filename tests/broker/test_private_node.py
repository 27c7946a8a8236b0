"""The broker that tests start for themselves."""

import pytest

from tests.broker.node import PrivateNode

pytestmark = pytest.mark.broker


def test_queues_survive_the_death_of_the_node(private_node: PrivateNode) -> None:
    durable = {"durable": True, "arguments": {"x-queue-type": "quorum"}}
    private_node.management.request("PUT", "queues", "/", "kept", json=durable)
    private_node.kill()
    private_node.start()
    assert "kept" in {queue["name"] for queue in private_node.management.queues()}
    private_node.management.delete_queue("kept")
