"""A whole deployment on a broker: `ktrdr serve`, host agents, and the commands that people use."""

import secrets
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ktrdr.backend.records import OperationRecord, SubmitTraining
from ktrdr.backend.store import OperationStore
from ktrdr.backend.submitting import Submitter
from tests.broker.node import PrivateNode
from tests.e2e.command import Command
from tests.e2e.installation import MOMENTUM, Installation
from tests.e2e.waiting import eventually

LEASE_S = 3.0
_EMPTY_WITHIN_S = 60.0


class Deployment(Installation):
    """An installation whose trainings go over a broker, in a virtual host of its own.

    Times are short, so that a test sees in seconds what takes minutes in use.
    """

    def __init__(self, root: Path, node: PrivateNode) -> None:
        super().__init__(root)
        self.node = node
        self.vhost = f"test-{secrets.token_hex(4)}"
        node.management.add_vhost(self.vhost)
        node.management.set_permissions("guest", configure=".*", write=".*", read=".*", vhost=self.vhost)
        self.url = node.amqp_url(vhost=self.vhost)
        self.variables = {
            "KTRDR_BROKER_URL": self.url,
            "KTRDR_LEASE_S": str(LEASE_S),
            "KTRDR_PRESENCE_INTERVAL_S": "0.5",
            "KTRDR_RETRY_BACKOFF_S": "0.1",
            "KTRDR_DRAIN_S": "5",
            "KTRDR_BROKER_HEARTBEAT_S": "2",
            "KTRDR_LISTEN": "127.0.0.1:0",
        }

    def __exit__(self, *details: object) -> None:
        super().__exit__(*details)
        if self.node.is_running:
            self.node.management.delete_vhost(self.vhost)

    # --- processes --------------------------------------------------------------------------------

    def serve(self, *arguments: str, **variables: str) -> Command:
        """Start the backend, and wait until it works."""
        return self.start("serve", *arguments, **variables).until_said("serving")

    def agent(self, name: str, *arguments: str, **variables: str) -> Command:
        """Start a host agent with a home of its own that shares the blob store; it may not be ready yet."""
        return self.start(
            *("agent", "--name", name, "--home", self.agent_home(name), *arguments),
            **{"KTRDR_BLOB_STORE": str(self.settings.blobs_dir), **variables},
        )

    def ready_agent(self, name: str, *arguments: str, **variables: str) -> Command:
        """Start a host agent, and wait until the backend has heard of it."""
        agent = self.agent(name, *arguments, **variables)
        return agent.until(lambda: name in self.agents(), f"the backend has heard of {name}")

    def agent_home(self, name: str) -> Path:
        """Return the home directory of an agent."""
        return self.root / "hosts" / name

    # --- work -------------------------------------------------------------------------------------

    def submit(self, *arguments: str, seed: int = 7, strategy: Path = MOMENTUM) -> str:
        """Have a strategy trained on a host and nowhere else, and return the operation's id."""
        options = ("--seed", str(seed), "--detach", "--lane", "any")
        return self.start("train", strategy, *options, *arguments).succeed().stdout.strip()

    def submit_again(self, operation_id: str, seeds: Iterable[int]) -> list[str]:
        """Have the same trained under other seeds, without a process for each."""
        found = self.open_store().find_request(operation_id)
        assert found is not None
        operation, request = found
        submitter = Submitter(self.settings, self.open_store())
        return [
            submitter.submit(
                SubmitTraining(
                    strategy=request.strategy,
                    symbol=operation.symbol,
                    timeframe=operation.timeframe,
                    datasets=request.datasets,
                    seed=seed,
                )
            ).operation.operation_id
            for seed in seeds
        ]

    # --- what there is ----------------------------------------------------------------------------

    def open_store(self) -> OperationStore:
        """Return the operations database, made if need be."""
        if self._store is None:
            self._store = OperationStore.open(self.settings)
        return self._store

    def agents(self) -> dict[str, Any]:
        """Return what the backend knows of the agents, by name."""
        return {agent.agent_id: agent for agent in self.open_store().agents()}

    def unfinished(self) -> list[OperationRecord]:
        """Return the operations that have not ended."""
        return [operation for operation in self.operations() if not operation.state.terminal]

    def wait_for_all(self, within_s: float = 90.0) -> None:
        """Wait until every operation has ended."""
        eventually(lambda: not self.unfinished(), within_s=within_s, otherwise=self.describe)

    def queued_messages(self) -> dict[str, int]:
        """Return how many messages are in each queue that has any, but for the journal, which keeps all."""
        found = {queue["name"]: queue.get("messages", 0) for queue in self.node.management.queues(self.vhost)}
        return {name: count for name, count in found.items() if count and not name.endswith(".journal")}

    def wait_for_empty_queues(self) -> None:
        """Wait until no message is left; the counts of the management API lag by some seconds."""
        eventually(
            lambda: not self.queued_messages(),
            within_s=_EMPTY_WITHIN_S,
            otherwise=lambda: f"left in queues: {self.queued_messages()}\n{self.describe()}",
        )

    def has_spooled(self) -> bool:
        """Return whether an agent has recorded how an attempt ended, and not been answered yet."""
        return any(self.root.glob("hosts/*/agents/*/claims/*/ending.json"))

    def claims(self) -> list[Path]:
        """Return the folders of claims that agents hold: what runs, and results that are not answered."""
        return list(self.root.glob("hosts/*/agents/*/claims/*"))

    def leftovers(self) -> list[Path]:
        """Return what a training needs on its way and none that has ended may leave behind."""
        patterns = ("hosts/*/agents/*/datasets/.*", "hosts/*/agents/*/set-aside/*")
        found = [path for pattern in patterns for path in self.root.glob(pattern)]
        return super().leftovers() + self.claims() + found
