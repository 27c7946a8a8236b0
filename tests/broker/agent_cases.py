"""Host agents on a real broker, and the other end of it, on names of their own."""

import asyncio
import json
import os
import secrets
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from host_agent.agent import HostAgent, speaker_of
from host_agent.directory import AgentDirectory
from host_agent.options import AgentOptions
from host_agent.runner_process import Runner
from ktrdr.blobs.directory import DirectoryBlobStore
from ktrdr.bus.port import Bus
from ktrdr.bus.rabbitmq import RabbitMQBus
from ktrdr.bus.rabbitmq_arguments import wire_name
from ktrdr.bus.rabbitmq_connection import ConnectionLimits
from ktrdr.clock import SystemClock
from ktrdr.errors import BusError
from ktrdr.ids import RandomIds
from tests.broker.node import PrivateNode
from tests.unit.agent_cases import Backend


@dataclass
class Installation:
    """A prefix of names on a broker, a backend that listens there, and agents that come and go."""

    node: PrivateNode
    root: Path
    prefix: str
    backend: Backend
    blobs: DirectoryBlobStore
    options: AgentOptions = field(
        default_factory=lambda: AgentOptions(publish_timeout_s=2.0, presence_interval_s=0.2)
    )

    def connect(self, agent_id: str, url: str | None = None, *, heartbeat_s: int = 15) -> RabbitMQBus:
        """Return a bus as an agent has it; whoever asks closes it."""
        return RabbitMQBus(
            url or self.node.amqp_url(),
            name=speaker_of(agent_id),
            prefix=self.prefix,
            limits=ConnectionLimits(heartbeat_s=heartbeat_s),
        )

    @asynccontextmanager
    async def agent(
        self,
        directory: AgentDirectory,
        *runners: Runner,
        bus: Bus | None = None,
        options: AgentOptions | None = None,
    ) -> AsyncIterator[HostAgent]:
        """Run an agent with these runners; its bus is closed after it."""
        waiting = list(runners)
        bus = bus or self.connect(directory.agent_id)
        agent = HostAgent(
            bus=bus,
            blobs=self.blobs,
            directory=directory,
            options=options or self.options,
            clock=SystemClock(),
            ids=RandomIds(),
            new_runner=(lambda: waiting.pop(0)) if runners else None,
        )
        try:
            await agent.start()
            yield agent
        finally:
            await agent.stop()
            await bus.close()

    def queue(self, name: str) -> str:
        """Return what a queue is called on the broker."""
        return wire_name(name, self.prefix)

    def consumers(self, name: str) -> list[str]:
        """Return the tags of those who consume from a queue."""
        mine = self.queue(name)
        consumers = self.node.management.consumers()
        return [each["consumer_tag"] for each in consumers if each["queue"]["name"] == mine]

    async def left_in(self, name: str) -> str | None:
        """Return what the next message in a queue is, or None if there is none; counts lag, this does not."""
        delivery = await self.backend.bus.get(name)
        if delivery is None:
            return None
        await delivery.nack()
        return f"{delivery.message.correlation_id}: {delivery.message.headers.get('summary')}"

    @contextmanager
    def process(self, name: str, home: Path, **variables: str) -> Iterator["AgentProcess"]:
        """Run ``ktrdr agent`` as a user does; it is killed at the end if it still runs."""
        inherited = {key: value for key, value in os.environ.items() if not key.startswith("KTRDR_")}
        settings = {
            "KTRDR_BROKER_URL": self.node.amqp_url(),
            "KTRDR_BROKER_PREFIX": self.prefix,
            "KTRDR_BLOB_STORE": str(self.blobs.root),
            "KTRDR_HOME": str(home),
            "KTRDR_AGENT_ID": name,
            "KTRDR_PRESENCE_INTERVAL_S": "0.5",
        }
        log = self.root / f"{name}-{secrets.token_hex(3)}.log"
        with (
            log.open("w") as output,
            subprocess.Popen(
                [sys.executable, "-m", "ktrdr.cli.main", "agent"],
                stderr=output,
                env={**inherited, **settings, **variables},
            ) as process,
        ):
            try:
                yield AgentProcess(process, log)
            finally:
                process.kill()


@dataclass(frozen=True)
class AgentProcess:
    """A process that runs ``ktrdr agent``."""

    process: subprocess.Popen[bytes]
    log: Path

    def lines(self) -> list[dict[str, Any]]:
        """Return the lines of its log so far."""
        return [json.loads(line) for line in self.log.read_text().splitlines() if line.endswith("}")]

    def says(self, event: str) -> bool:
        """Return whether there is such a line."""
        return any(event in line["event"] for line in self.lines())


@asynccontextmanager
async def installation(node: PrivateNode, root: Path) -> AsyncIterator[Installation]:
    """Yield a new prefix of names with a listening backend; the names are deleted after it."""
    prefix = f"t{secrets.token_hex(4)}"
    bus = RabbitMQBus(node.amqp_url(), name="backend@test", prefix=prefix)
    blobs = DirectoryBlobStore(root / "blobs")
    backend = Backend(bus, blobs)
    await backend.declare()
    listening = asyncio.create_task(_listen_always(backend))
    try:
        yield Installation(node, root, prefix, backend, blobs)
    finally:
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)
        await bus.close()
        for queue in node.management.queues():
            if queue["name"].startswith(f"{prefix}."):
                node.management.delete_queue(queue["name"])
        for exchange in node.management.exchanges():
            if exchange["name"].startswith(f"{prefix}."):
                node.management.delete_exchange(exchange["name"])


async def _listen_always(backend: Backend) -> None:
    """Listen anew whenever the connection was lost, as a backend does."""
    while True:
        try:
            await backend.listen()
        except* BusError:
            pass
        await asyncio.sleep(0.1)
