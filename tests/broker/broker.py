"""The broker that tests run against, wherever it comes from."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from tests.broker.container import container
from tests.broker.node import PrivateNode
from tests.broker.node_config import NodeConfig
from tests.broker.search import docker_answers, given_url


@dataclass(frozen=True, slots=True)
class Broker:
    """A RabbitMQ to test with."""

    url: str
    """Where to connect to, as a user who may do everything."""
    node: PrivateNode | None
    """The node itself, if it is a private one, to which tests may do what they like."""


@contextmanager
def any_broker() -> Iterator[Broker]:
    """Find or start a broker: the one that is given, one in Docker, or a private node.

    Raises:
        BrokerUnavailableError: There is none; the message names the one command that gets one.
    """
    with ExitStack() as stack:
        url = given_url()
        if url is None and docker_answers():
            url = stack.enter_context(container("rabbitmq"))
        if url is not None:
            yield Broker(url, None)
        else:
            node = stack.enter_context(PrivateNode(NodeConfig(tls=True)))
            yield Broker(node.amqp_url(), node)
