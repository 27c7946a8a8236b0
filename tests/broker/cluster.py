"""Three private nodes that are one RabbitMQ."""

import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Self

from tests.broker.erlang_host import ErlangHost
from tests.broker.errors import BrokerFailedError
from tests.broker.node import PrivateNode
from tests.broker.node_config import NodeConfig

_SIZE = 3
_POLL_S = 0.02
_NAMES = tuple(f"n{number}" for number in range(1, _SIZE + 1))


class Cluster:
    """A cluster of three `PrivateNode`, which may be killed and started one by one.

    A context manager that starts and stops; blocks as the nodes do.
    """

    def __init__(self, config: NodeConfig | None = None) -> None:
        """Prepare a cluster; the nodes' configurations differ in nothing."""
        self._host = ErlangHost()
        config = replace(config or NodeConfig(), lines=(*(config.lines if config else ()), *_formation()))
        self.nodes: tuple[PrivateNode, ...] = tuple(
            PrivateNode(config, name=name, host=self._host) for name in _NAMES
        )

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start what does not run, and return when all are ready."""
        stopped = [node for node in self.nodes if not node.is_running]
        _all_at_once([node.start for node in stopped])

    def stop(self) -> None:
        """Kill all nodes and remove everything."""
        for node in self.nodes:
            node.stop()
        self._host.close()

    def urls(self, *, user: str = "guest", password: str | None = None, vhost: str = "/") -> list[str]:
        """Return the URL of each node."""
        return [node.amqp_url(user=user, password=password, vhost=vhost) for node in self.nodes]

    def running(self) -> list[PrivateNode]:
        """Return the nodes that run."""
        return [node for node in self.nodes if node.is_running]

    def leader_of(self, queue: str, vhost: str = "/", *, within_s: float = 30.0) -> PrivateNode:
        """Return the running node where the leader of a quorum queue is; wait for one to be elected.

        Raises:
            BrokerFailedError: There is none in time.
        """
        end = time.monotonic() + within_s
        while time.monotonic() < end:
            for node in self.running():
                told = node.management.request("GET", "queues", vhost, queue)
                if told.get("leader") == node.name:
                    return node
            time.sleep(_POLL_S)
        raise BrokerFailedError(f"{queue} has no leader")


def _formation() -> Iterable[str]:
    yield "cluster_formation.peer_discovery_backend = classic_config"
    for number, name in enumerate(_NAMES, start=1):
        yield f"cluster_formation.classic_config.nodes.{number} = {name}@localhost"


def _all_at_once(actions: Sequence[Callable[[], None]]) -> None:
    with ThreadPoolExecutor(_SIZE) as threads:
        for future in [threads.submit(action) for action in actions]:
            future.result()
