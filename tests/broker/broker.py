"""The broker that tests run against, wherever it comes from."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tests.broker.errors import BrokerUnavailableError
from tests.broker.node import PrivateNode
from tests.broker.node_config import NodeConfig
from tests.broker.programs import how_to_install
from tests.broker.search import docker_answers, given_url

_DOCKER = "tests.broker.docker_process"
_STOPPED_WITHIN_S = 30.0


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
    if url := given_url():
        yield Broker(url, None)
    elif docker_answers():
        with _container() as url:
            yield Broker(url, None)
    else:
        with PrivateNode(NodeConfig(tls=True)) as node:
            yield Broker(node.amqp_url(), node)


@contextmanager
def _container() -> Iterator[str]:
    process = subprocess.Popen(
        [sys.executable, "-m", _DOCKER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    if not (url := process.stdout.readline().strip()):
        _, problem = process.communicate()
        raise BrokerUnavailableError(
            f"Docker answers, but does not start RabbitMQ. Get one without Docker: {how_to_install()}, "
            f"and export DOCKER_HOST=none. Docker said: {problem[-2000:]}"
        )
    try:
        yield url
    finally:
        process.communicate(timeout=_STOPPED_WITHIN_S)
