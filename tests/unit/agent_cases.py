"""What surrounds an agent in tests: a backend at the other end of the bus, and runners that obey the test."""

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

from host_agent.agent import HostAgent
from host_agent.directory import AgentDirectory
from host_agent.endings import Cancelled, Ending, Trained
from host_agent.frames import LogLine, Ready
from host_agent.options import AgentOptions
from host_agent.runner_process import Runner
from ktrdr.blobs.directory import DirectoryBlobStore
from ktrdr.bus.memory import MemoryBroker, MemoryBus
from ktrdr.bus.port import Bus, Consumer
from ktrdr.bus.publisher import EventPublisher
from ktrdr.bus.topology import (
    BACKEND_EVENTS,
    Topology,
    presence_queue,
    presence_topology,
    progress_queue,
    progress_topology,
    shared_topology,
)
from ktrdr.clock import Clock, SystemClock
from ktrdr.errors import BusError, BusUnavailableError, RunnerCrashedError
from ktrdr.events import (
    AgentPresence,
    BlobRef,
    CancelRequested,
    DatasetRef,
    Event,
    FileDigest,
    Message,
    ModelDiscarded,
    ModelManifest,
    ModelPersisted,
    ModelReady,
    RunningAttempt,
    StrategyDocument,
    TrainingRequested,
    decode,
)
from ktrdr.events.base import ClaimEvent
from ktrdr.ids import RandomIds
from ktrdr.training.job import TrainingJob
from ktrdr.training.progress import Progress

PATIENCE_S = 60.0

E = TypeVar("E", bound=Event)


async def eventually(
    condition: Callable[[], object], what: str = "", *, patience_s: float = PATIENCE_S
) -> None:
    """Wait until the condition holds; fail if it does not in time."""
    deadline = time.monotonic() + patience_s
    while not condition():
        assert time.monotonic() < deadline, f"never: {what or condition}"
        await asyncio.sleep(0.002)


def manifest(bundle: bytes) -> ModelManifest:
    sha256 = hashlib.sha256(bundle).hexdigest()
    return ModelManifest(
        strategy="momentum",
        symbol="EURUSD",
        timeframe="1h",
        output_format="classification",
        features=("1h_rsi_low",),
        classes=("BUY", "HOLD", "SELL"),
        metrics={"test_accuracy": 0.5},
        epochs_trained=3,
        best_epoch=2,
        train_rows=70,
        validation_rows=15,
        test_rows=15,
        parameters=10,
        strategy_sha256="0" * 64,
        weights_sha256="1" * 64,
        bundle_sha256=sha256,
        bundle_size=len(bundle),
        files={"model.safetensors": FileDigest(sha256=sha256, size=len(bundle))},
        seed=1,
        device="cpu",
    )


@dataclass(frozen=True)
class Model:
    """An ending that leaves this bundle."""

    bundle: bytes = b"a model"


Outcome = Model | Ending | Exception


class ScriptedRunner:
    """A runner whose runs end as the test says, when it says so; or when they are cancelled."""

    def __init__(self) -> None:
        self.jobs: list[TrainingJob] = []
        self.active = 0
        self.warmed = 0
        self.closed = False
        self.starts_fail = False
        self.device = "cpu"
        self.progress: Callable[[Progress], None] | None = None
        self.log: Callable[[LogLine], None] | None = None
        self._outcomes: asyncio.Queue[Outcome] = asyncio.Queue()

    def finish(self, outcome: Outcome) -> None:
        """End the current run, or the next one, like this."""
        self._outcomes.put_nowait(outcome)

    def warm(self) -> None:
        self.warmed += 1

    async def ready(self) -> Ready:
        if self.starts_fail:
            raise RunnerCrashedError("no module named torch")
        return Ready(device=self.device, device_name="a device", memory_bytes=1, import_seconds=0)

    async def run(
        self,
        job: TrainingJob,
        *,
        run_id: str,
        bundle: Path,
        cancel: asyncio.Event,
        on_progress: Callable[[Progress], None],
        on_log: Callable[[LogLine], None],
    ) -> Ending:
        await self.ready()
        self.jobs.append(job)
        self.progress, self.log = on_progress, on_log
        self.active += 1
        cancelled = asyncio.create_task(cancel.wait())
        finished = asyncio.create_task(self._outcomes.get())
        try:
            await asyncio.wait((cancelled, finished), return_when=asyncio.FIRST_COMPLETED)
            if not finished.done():
                return Cancelled(epoch=1)
            match finished.result():
                case Exception() as error:
                    raise error
                case Model(bundle=content):
                    await asyncio.to_thread(bundle.write_bytes, content)
                    return Trained(manifest=manifest(content))
                case ending:
                    return ending
        finally:
            self.active -= 1
            cancelled.cancel()
            finished.cancel()

    async def close(self) -> None:
        self.closed = True


class UnreliableBus:
    """A bus that can be cut off; what is consumed already stays, as on another connection."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self.is_down = False
        self.refuse: Callable[[Message], Exception | None] = lambda message: None
        """Says which publishes fail, and how."""
        self.after: Callable[[Message], Exception | None] = lambda message: None
        """Says which publishes succeed without the sender's knowing."""
        self.refuse_queue: str | None = None
        """Which queue cannot be consumed."""
        self.refused = 0

    async def lose_connection(self, to: MemoryBroker) -> None:
        """Be connected anew to the broker: consumers, deliveries and exclusive queues are gone."""
        lost, self._bus = self._bus, MemoryBus(to)
        await lost.close()

    async def declare(self, topology: Topology) -> None:
        self._require_up()
        await self._bus.declare(topology)

    async def publish(
        self, message: Message, *, exchange: str, routing_key: str, mandatory: bool, timeout_s: float
    ) -> None:
        self._require_up()
        if (error := self.refuse(message)) is not None:
            raise error
        await self._bus.publish(
            message, exchange=exchange, routing_key=routing_key, mandatory=mandatory, timeout_s=timeout_s
        )
        if (error := self.after(message)) is not None:
            raise error

    async def consume(
        self, queue: str, *, prefetch: int, consumer_tag: str, acknowledge: bool = True
    ) -> Consumer:
        self._require_up()
        if queue == self.refuse_queue:
            self.refused += 1
            raise BusError("refused by the test")
        return await self._bus.consume(
            queue, prefetch=prefetch, consumer_tag=consumer_tag, acknowledge=acknowledge
        )

    async def close(self) -> None:
        await self._bus.close()

    def _require_up(self) -> None:
        if self.is_down:
            raise BusUnavailableError("cut off by the test")


_BACKEND = "test"


class QuickClock:
    """Time that passes so many times as fast; with a factor below 1, as slowly."""

    def __init__(self, factor: float) -> None:
        self._factor = factor

    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic(self) -> float:
        return time.monotonic() * self._factor

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds / self._factor)


class Backend:
    """The other side of the bus: notes every event, and answers when it is told to."""

    def __init__(self, bus: Bus, blobs: DirectoryBlobStore) -> None:
        self.bus = bus
        self.blobs = blobs
        self.heard: list[tuple[str, Event]] = []
        """Event ids and events, in the order in which they came."""
        self.presence: list[AgentPresence] = []
        self.answers = True
        """Whether a model is answered with `ModelPersisted`."""
        self.publisher = EventPublisher(
            self.bus, sender="backend@test", ids=RandomIds(), clock=SystemClock(), timeout_s=5
        )
        self.asked = 0
        """How many requests were made."""
        self._operations = 0

    async def declare(self) -> None:
        for topology in (shared_topology(), progress_topology(_BACKEND), presence_topology(_BACKEND)):
            await self.bus.declare(topology)

    async def listen(self) -> None:
        await self.declare()
        async with asyncio.TaskGroup() as group:
            for queue in (BACKEND_EVENTS, progress_queue(_BACKEND), presence_queue(_BACKEND)):
                group.create_task(self._read(queue))

    async def _read(self, queue: str) -> None:
        async for delivery in await self.bus.consume(queue, prefetch=10, consumer_tag=f"backend/{queue}"):
            envelope = decode(delivery.message)
            if isinstance(envelope.event, AgentPresence):
                self.presence.append(envelope.event)
            else:
                self.heard.append((envelope.event_id, envelope.event))
            if isinstance(envelope.event, ModelReady) and self.answers:
                await self.persisted(envelope.event)
            await delivery.ack()

    def events(self, kind: type[E]) -> list[E]:
        """Return what was heard of one type."""
        return [event for _, event in self.heard if isinstance(event, kind)]

    def running(self) -> tuple[RunningAttempt, ...]:
        """Return what the agent said last that it holds."""
        return self.presence[-1].running if self.presence else ()

    async def event(self, kind: type[E], number: int = 1) -> E:
        """Wait for so many events of a type, and return the last of them."""
        await eventually(lambda: len(self.events(kind)) >= number, f"{number} {kind.__name__}: {self.heard}")
        return self.events(kind)[number - 1]

    def dataset(self, content: bytes = b"bars") -> DatasetRef:
        moment = datetime(2024, 1, 1, tzinfo=UTC)
        return DatasetRef(
            symbol="EURUSD",
            timeframe="1h",
            blob=self.blobs.put(content),
            rows=1,
            start=moment,
            end=moment,
        )

    def request(self, **changes: object) -> TrainingRequested:
        """Return a request of a new operation."""
        self._operations += 1
        self.asked += 1
        text = "name: momentum"
        fields: dict[str, object] = {
            "operation_id": f"op-{self._operations}",
            "attempt": 1,
            "strategy": StrategyDocument(
                name="momentum", yaml=text, sha256=hashlib.sha256(text.encode()).hexdigest()
            ),
            "datasets": (self.dataset(),),
            "seed": 7,
            "requested_at": datetime(2024, 1, 1, tzinfo=UTC),
            "accept_within_s": 60.0,
        }
        return TrainingRequested.model_validate({**fields, **changes})

    async def ask(self, **changes: object) -> TrainingRequested:
        """Publish a request of a new operation."""
        request = self.request(**changes)
        await self.publisher.publish(request)
        return request

    async def cancel(self, of: TrainingRequested | ClaimEvent, claim_id: str | None = None) -> None:
        order = CancelRequested(
            operation_id=of.operation_id, attempt=of.attempt, claim_id=claim_id, reason="by the test"
        )
        await self.publisher.publish(order)

    async def persisted(self, ready: ModelReady) -> None:
        answer = ModelPersisted(
            operation_id=ready.operation_id,
            attempt=ready.attempt,
            claim_id=ready.claim_id,
            model="momentum/EURUSD_1h_v1",
            model_version=1,
            bundle_sha256=ready.manifest.bundle_sha256,
        )
        await self.publisher.publish(answer)

    async def discarded(self, ready: ModelReady) -> None:
        answer = ModelDiscarded(
            operation_id=ready.operation_id,
            attempt=ready.attempt,
            claim_id=ready.claim_id,
            reason="by the test",
        )
        await self.publisher.publish(answer)


@dataclass
class World:
    """A broker, a backend, a blob store, and agents that may come and go."""

    root: Path
    broker: MemoryBroker
    backend: Backend
    blobs: DirectoryBlobStore
    clock: Clock = field(default_factory=SystemClock)
    options: AgentOptions = field(
        default_factory=lambda: AgentOptions(publish_timeout_s=2.0, presence_interval_s=0.05)
    )

    @property
    def agents_dir(self) -> Path:
        return self.root / "agents"

    def agent(
        self,
        directory: AgentDirectory,
        *runners: Runner,
        bus: Bus | None = None,
        options: AgentOptions | None = None,
    ) -> HostAgent:
        """Return an agent with these runners, one for each slot."""
        waiting = list(runners)
        return HostAgent(
            bus=bus or MemoryBus(self.broker),
            blobs=self.blobs,
            directory=directory,
            options=options or self.options,
            clock=self.clock,
            ids=RandomIds(),
            new_runner=(lambda: waiting.pop(0)) if runners else None,
        )


@asynccontextmanager
async def world(root: Path) -> AsyncIterator[World]:
    """Yield a world with a listening backend."""
    broker = MemoryBroker(max_message_bytes=2**30)  # so that tests can send what no broker would take
    blobs = DirectoryBlobStore(root / "blobs")
    backend = Backend(MemoryBus(broker), blobs)
    await backend.declare()
    listening = asyncio.create_task(backend.listen())
    try:
        yield World(root, broker, backend, blobs)
    finally:
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)
        await backend.bus.close()


def blob_ref(content: bytes) -> BlobRef:
    """Return a reference to content that is in no store."""
    sha256 = hashlib.sha256(content).hexdigest()
    return BlobRef(uri=f"blob:{sha256}", sha256=sha256, size=len(content))
