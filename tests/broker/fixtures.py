"""Fixtures that bring a broker. Nothing is started before a test asks for it."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from tests.broker.broker import Broker, any_broker
from tests.broker.cluster import Cluster
from tests.broker.node import PrivateNode
from tests.broker.node_config import NodeConfig

StartNode = Callable[[NodeConfig], PrivateNode]


@pytest.fixture(scope="session")
def broker() -> Iterator[Broker]:
    """The broker of this process of the tests. Others use it too: take fresh names, and clear them away."""
    with any_broker() as found:
        yield found


@pytest.fixture
def private_node(any_private_node: PrivateNode) -> Iterator[PrivateNode]:
    """A node to which the test may do what it likes; it runs again, without alarm, after the test.

    Queues, users and whatever else it holds stay for the next test. It listens for TLS too: the authority to
    trust is ``private_node.authority``.
    """
    yield any_private_node
    if any_private_node.is_running:
        any_private_node.set_memory_alarm(False)
    else:
        any_private_node.start()


@pytest.fixture
def start_node() -> Iterator[StartNode]:
    """Start nodes of this test's own, each with its configuration; they are stopped after the test."""
    with ExitStack() as nodes:
        yield lambda config: nodes.enter_context(PrivateNode(config))


@pytest.fixture
def cluster(running_cluster: Cluster) -> Iterator[Cluster]:
    """A cluster of three nodes to which the test may do what it likes; all run again after the test."""
    yield running_cluster
    for node in running_cluster.running():
        node.set_memory_alarm(False)
    running_cluster.start()


@pytest.fixture(scope="session")
def any_private_node(broker: Broker) -> Iterator[PrivateNode]:
    """The node behind `private_node`; ask for that one, which heals it after each test."""
    if broker.node is not None:
        yield broker.node
    else:
        with PrivateNode(NodeConfig(tls=True)) as node:
            yield node


@pytest.fixture(scope="module")
def running_cluster() -> Iterator[Cluster]:
    """The cluster behind `cluster`; ask for that one, which heals it after each test."""
    with Cluster() as cluster:
        yield cluster
