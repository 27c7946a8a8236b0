"""A backend in this process and agents in others, on the broker of this run."""

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

from pydantic import JsonValue, SecretStr

from benchmarks.broker import Processes, broker_url
from benchmarks.raw_amqp import delete
from benchmarks.sample import ROOT, STRATEGY
from ktrdr.app.embedded import submission_of
from ktrdr.backend.preparation import PreparedTraining, prepare_training
from ktrdr.backend.records import OperationRecord, SubmitTraining
from ktrdr.backend.service import Backend
from ktrdr.backend.states import State
from ktrdr.backend.store import OperationStore
from ktrdr.backend.wishes import TrainingWish
from ktrdr.blobs.opening import open_blob_store
from ktrdr.bus.rabbitmq import RabbitMQBus
from ktrdr.bus.rabbitmq_arguments import WireNames
from ktrdr.bus.topology import shared_topology
from ktrdr.clock import SystemClock
from ktrdr.ids import RandomIds
from ktrdr.settings import Settings


@dataclass(slots=True)
class Installation:
    """What a measurement works with."""

    settings: Settings
    store: OperationStore
    backend: Backend
    processes: Processes
    training: PreparedTraining

    def wish(self, lane: str = "any") -> SubmitTraining:
        """One more training of the sample, unlike any other."""
        wish = submission_of(self.training, TrainingWish(STRATEGY, lane=lane), RandomIds())
        return replace(wish, fingerprint=None)

    async def run(self, lane: str = "any") -> OperationRecord:
        """Submit a training and wait for its model."""
        submission = await self.backend.submit(self.wish(lane))
        record = await self.backend.wait(submission.operation.operation_id)
        assert record.state is State.COMPLETED, record
        return record

    async def agent(self, name: str = "a1", *arguments: str, **settings: str) -> int:
        """Start an agent and wait until it takes requests; returns its process id."""
        pid = self.processes.python(
            *("-m", "benchmarks.agent_process", "--id", name, *arguments),
            environment={**self.environment(), **settings},
        )
        await asyncio.to_thread(self.processes.wait_ready, pid)
        return pid

    def environment(self) -> dict[str, str]:
        """What another process of this installation is started with."""
        settings = self.settings
        assert settings.broker_url is not None
        return {
            "KTRDR_HOME": str(settings.home),
            "KTRDR_MODELS_DIR": str(settings.models_dir),
            "KTRDR_BROKER_URL": settings.broker_url.get_secret_value(),
            "KTRDR_BROKER_PREFIX": settings.broker_prefix,
            "KTRDR_BLOB_STORE": str(settings.blobs_dir),
        }


@asynccontextmanager
async def installation(
    *, epochs: int = 1, training: dict[str, JsonValue] | None = None
) -> AsyncIterator[Installation]:
    """Start a backend that nothing else on this broker knows of; the end of the block ends everything."""
    with Processes() as processes:
        settings = Settings(
            home=processes.directory / "home",
            models_dir=processes.directory / "models",
            broker_url=SecretStr(broker_url()),
            broker_prefix=f"bench-{secrets.token_hex(4)}",
        )
        blobs = open_blob_store(settings)
        prepared = await asyncio.to_thread(
            prepare_training,
            STRATEGY,
            strategies_dir=ROOT / "strategies",
            data_dir=ROOT / "data",
            blobs=blobs,
            overrides={"training.epochs": epochs, "training.early_stopping": False, **(training or {})},
        )
        clock, ids = SystemClock(), RandomIds()
        bus = RabbitMQBus(broker_url(), name="backend@benchmark", prefix=settings.broker_prefix)
        with OperationStore.open(settings) as store:
            backend = Backend(settings, bus=bus, store=store, blobs=blobs, clock=clock, ids=ids)
            try:
                async with backend:
                    yield Installation(settings, store, backend, processes, prepared)
            finally:
                await bus.close()
                await _clean_up(settings)


async def _clean_up(settings: Settings) -> None:
    names, topology = WireNames(settings.broker_prefix), shared_topology()
    await delete(
        broker_url(),
        queues=[names.wire(queue.name) for queue in topology.queues],
        exchanges=[names.wire(exchange.name) for exchange in topology.exchanges],
    )
