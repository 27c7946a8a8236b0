"""The broker that tests run against, wherever it comes from."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tests.broker.errors import BrokerUnavailableError
from tests.broker.node import PrivateNode
from tests.broker.node_config import NodeConfig
from tests.broker.programs import find_programs, how_to_install

GIVEN = "KTRDR_TEST_AMQP_URL"
"""The environment variable that names a broker to use."""

_DOCKER = "tests.broker.docker_process"
_ENGINE_ANSWERS_WITHIN_S = 10.0
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
    if url := os.environ.get(GIVEN):
        yield Broker(url, None)
    elif docker_answers():
        with _container() as url:
            yield Broker(url, None)
    else:
        with PrivateNode(NodeConfig(tls=True)) as node:
            yield Broker(node.amqp_url(), node)


def check_there_is_one() -> None:
    """Do nothing if `any_broker` will find one; nothing is started.

    Raises:
        BrokerUnavailableError: It will not.
    """
    if not os.environ.get(GIVEN):
        try:
            find_programs()
        except BrokerUnavailableError:
            if not docker_answers():
                raise


def docker_answers() -> bool:
    """Whether there is a Docker engine."""
    try:
        return (
            subprocess.run(
                [sys.executable, "-m", _DOCKER, "--ping"],
                timeout=_ENGINE_ANSWERS_WITHIN_S,
                capture_output=True,
                check=False,
            ).returncode
            == 0
        )
    except subprocess.TimeoutExpired:
        return False


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
