"""A backend with real bus, database and disk around it, and an agent that follows a script."""

import asyncio
import hashlib
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

from ktrdr.backend import dispatching
from ktrdr.backend.attempts import RetryPolicy
from ktrdr.backend.instances import InstanceLock
from ktrdr.backend.persistence import ModelPersister, VerifiedModel
from ktrdr.backend.records import NewRequest, OperationRecord, SubmitTraining
from ktrdr.backend.service import Backend
from ktrdr.backend.states import State
from ktrdr.backend.store import OperationStore
from ktrdr.blobs.directory import DirectoryBlobStore
from ktrdr.bus.memory import MemoryBroker, MemoryBus
from ktrdr.bus.port import Bus
from ktrdr.bus.publisher import EventPublisher
from ktrdr.bus.topology import Topology, agent_topology, control_queue, lane_queue, shared_topology
from ktrdr.clock import Clock, SystemClock
from ktrdr.errors import BusUnavailableError, PublishBlockedError
from ktrdr.events import (
    AgentPresence,
    BlobRef,
    CancelRequested,
    Codec,
    DatasetRef,
    Event,
    FailureCause,
    InlineModel,
    ModelDiscarded,
    ModelManifest,
    ModelPersisted,
    ModelReady,
    RunningAttempt,
    StrategyDocument,
    TrainingAccepted,
    TrainingCancelled,
    TrainingFailed,
    TrainingProgress,
    TrainingRequested,
    decode,
)
from ktrdr.events.compression import compress
from ktrdr.events.message import Message
from ktrdr.ids import RandomIds
from ktrdr.models.bundle import BUNDLE_FILES, digests, pack
from ktrdr.models.directory import ModelDirectory
from ktrdr.settings import Settings
from tests.contract.virtual_clock import VirtualClock

T = TypeVar("T")

STRATEGY_YAML = "name: momentum\n"
PATIENCE_S = 60.0


def settings_in(directory: Path, **overrides: Any) -> Settings:
    """Settings of an installation in a directory."""
    values = {"retry_backoff_s": 1.0, "lease_s": 30.0, **overrides}
    return Settings(**{"home": directory / "home", "models_dir": directory / "models", **values})


def wish(**overrides: Any) -> SubmitTraining:
    """A training that a client may ask for."""
    digest = hashlib.sha256(STRATEGY_YAML.encode()).hexdigest()
    moment = datetime(2024, 1, 1, tzinfo=UTC)
    bars = DatasetRef(
        symbol="EURUSD",
        timeframe="1h",
        blob=BlobRef(uri=f"blob:{'0' * 64}", sha256="0" * 64, size=1),
        rows=1,
        start=moment,
        end=moment,
    )
    values: dict[str, Any] = {
        "strategy": StrategyDocument(name="momentum", yaml=STRATEGY_YAML, sha256=digest),
        "symbol": "EURUSD",
        "timeframe": "1h",
        "datasets": (bars,),
        "seed": 7,
    }
    return SubmitTraining(**{**values, **overrides})


def model_files(content: bytes = b"weights") -> dict[str, bytes]:
    """Files of a bundle; what is in them is no matter of the backend's."""
    return {name: content + name.encode() for name in BUNDLE_FILES}


def result(
    request: TrainingRequested, files: Mapping[str, bytes] | None = None, **manifest: Any
) -> tuple[ModelManifest, bytes]:
    """The manifest and the packed bundle that answer a request."""
    files = files or model_files()
    asked = {
        "strategy": request.strategy.name,
        "strategy_sha256": request.strategy.sha256,
        "seed": request.seed,
    }
    bundle = pack(files)
    return manifest_of(files, bundle, **{**asked, **manifest}), bundle


def manifest_of(files: Mapping[str, bytes], bundle: bytes, **values: Any) -> ModelManifest:
    """The manifest of a bundle, with whatever is to be in it; strategy, its hash and the seed must be."""
    found = digests(files)
    usual: dict[str, Any] = {
        "symbol": "EURUSD",
        "timeframe": "1h",
        "output_format": "classification",
        "features": ("rsi_14",),
        "classes": ("SELL", "HOLD", "BUY"),
        "metrics": {"accuracy": 0.5, "baseline_majority_class_accuracy": 0.4},
        "epochs_trained": 3,
        "best_epoch": 2,
        "train_rows": 70,
        "validation_rows": 15,
        "test_rows": 15,
        "parameters": 10,
        "weights_sha256": found["model.safetensors"].sha256,
        "bundle_sha256": hashlib.sha256(bundle).hexdigest(),
        "bundle_size": len(bundle),
        "files": found,
        "device": "cpu",
    }
    return ModelManifest(**{**usual, **values})


@dataclass(frozen=True, slots=True)
class Run:
    """An attempt in the hands of an agent."""

    request: TrainingRequested
    claim_id: str
    agent_id: str

    @property
    def token(self) -> dict[str, Any]:
        """The fencing token."""
        return {
            "operation_id": self.request.operation_id,
            "attempt": self.request.attempt,
            "claim_id": self.claim_id,
            "agent_id": self.agent_id,
        }

    @property
    def running(self) -> RunningAttempt:
        """How presence lists it."""
        return RunningAttempt(
            operation_id=self.request.operation_id, attempt=self.request.attempt, claim_id=self.claim_id
        )


class ScriptedAgent:
    """Speaks the events of an agent, when the test says so; does nothing by itself."""

    def __init__(
        self,
        broker: MemoryBroker | None,
        clock: Clock,
        agent_id: str = "agent-1",
        *,
        lanes: tuple[str, ...] = ("any",),
        bus: Bus | None = None,
    ) -> None:
        self.agent_id = agent_id
        self.told: list[Event] = []
        """What the backend has said to it, oldest first."""
        self._ids = RandomIds()
        self._lanes = lanes
        self._bus = bus or MemoryBus(broker or MemoryBroker(clock))
        self._publisher = EventPublisher(
            self._bus, sender=f"{agent_id}@machine", ids=self._ids, clock=clock, timeout_s=60.0
        )
        self._requests: asyncio.Queue[TrainingRequested] = asyncio.Queue()
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        await self._bus.declare(shared_topology())
        await self._bus.declare(agent_topology(self.agent_id))
        queues: list[tuple[str, Callable[[Any], None]]] = [
            (control_queue(self.agent_id), self.told.append),
            *((lane_queue(lane), self._requests.put_nowait) for lane in self._lanes),
        ]
        for queue, take in queues:
            consumer = await self._bus.consume(queue, prefetch=100, consumer_tag=self.agent_id)
            self._tasks.append(asyncio.create_task(self._read(consumer, take)))

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._bus.close()

    async def declare_lane(self, lane: str) -> None:
        await self._bus.declare(shared_topology((lane,)))

    def stop_of(self, run: Run) -> CancelRequested:
        token = {**run.token}
        del token["agent_id"]
        return CancelRequested(**token, reason="because")

    async def _read(self, consumer: Any, take: Callable[[Any], None]) -> None:
        async for delivery in consumer:
            take(decode(delivery.message).event)
            await delivery.ack()

    async def request(self) -> TrainingRequested:
        """The next request."""
        async with asyncio.timeout(PATIENCE_S):
            return await self._requests.get()

    @property
    def waiting(self) -> int:
        """How many requests nobody has looked at."""
        return self._requests.qsize()

    async def say(self, event: Event, event_id: str | None = None) -> str:
        return await self._publisher.publish(event, event_id=event_id)

    async def take(self, *, lease_s: float = 30.0) -> Run:
        """Take the next request and accept it."""
        run = self.claim(await self.request())
        await self.accept(run, lease_s=lease_s)
        return run

    def claim(self, request: TrainingRequested) -> Run:
        return Run(request, f"claim-{self._ids.token()}", self.agent_id)

    async def accept(self, run: Run, *, lease_s: float = 30.0, event_id: str | None = None) -> str:
        accepted = TrainingAccepted(**run.token, slot=1, device="cpu", lease_s=lease_s)
        return await self.say(accepted, event_id)

    async def progress(self, run: Run, sequence: int, **fields: Any) -> None:
        values = {"stage": "Training", "stage_number": 6, "stages": 8, "fraction": 0.5, **fields}
        await self.say(TrainingProgress(**run.token, sequence=sequence, **values))

    async def fail(self, run: Run, cause: FailureCause = FailureCause.RUNNER_CRASHED, **fields: Any) -> str:
        event_id = fields.pop("event_id", None)
        return await self.say(
            TrainingFailed(**run.token, cause=cause, message="it broke", **fields), event_id
        )

    async def cancelled(self, run: Run) -> None:
        await self.say(TrainingCancelled(**run.token, epoch=3))

    async def finish(self, run: Run, **manifest: Any) -> ModelReady:
        """Send the model."""
        event = self.model(run, **manifest)
        await self.say(event)
        return event

    def model(self, run: Run, files: Mapping[str, bytes] | None = None, **manifest: Any) -> ModelReady:
        made, bundle = result(run.request, files, **manifest)
        return ModelReady(
            **run.token, manifest=made, inline=InlineModel(codec=Codec.ZSTD, data=compress(bundle))
        )

    async def present(self, *runs: Run, **fields: Any) -> None:
        values = {
            "agent_id": self.agent_id,
            "state": "ready",
            "device": "cpu",
            "lanes": self._lanes or ("any",),
            "slots_total": max(1, len(runs)),
            "slots_busy": len(runs),
            "running": tuple(run.running for run in runs),
            **fields,
        }
        await self.say(AgentPresence(**values))

    def stops(self) -> list[CancelRequested]:
        return [event for event in self.told if isinstance(event, CancelRequested)]

    def persisted(self) -> list[ModelPersisted]:
        return [event for event in self.told if isinstance(event, ModelPersisted)]

    def discarded(self) -> list[ModelDiscarded]:
        return [event for event in self.told if isinstance(event, ModelDiscarded)]


async def inline(function: Callable[[], T]) -> T:
    """Run what blocks in the event loop: for a world in which time stands still meanwhile."""
    return function()


@dataclass
class World:
    """One process: backend, agent, bus; its time passes in `pass_time` only."""

    directory: Path
    settings: Settings
    clock: VirtualClock
    broker: MemoryBroker
    store: OperationStore
    backend: Backend
    agent: ScriptedAgent
    new_backend: Callable[[], Backend]
    others: list[ScriptedAgent] = field(default_factory=list)

    @classmethod
    def make(
        cls,
        directory: Path,
        *,
        clock: VirtualClock | None = None,
        broker: MemoryBroker | None = None,
        wrap: Callable[[Bus], Bus] = lambda bus: bus,
        backend: Mapping[str, Any] | None = None,
        **settings: Any,
    ) -> "World":
        chosen = settings_in(directory, **settings)
        clock = clock or VirtualClock()
        broker = broker or MemoryBroker(clock)
        _make_tables(chosen)
        store = OperationStore.open(chosen, clock=clock)

        def new_backend() -> Backend:
            made = Backend(
                chosen,
                bus=wrap(MemoryBus(broker)),
                store=store,
                blobs=DirectoryBlobStore(chosen.blobs_dir),
                clock=clock,
                ids=RandomIds(),
                offload=inline,
                **(backend or {}),
            )
            # Hours pass here, and asking is all that happens in most of their moments.
            made._feed._poll_s = 0.05
            return made

        agent = ScriptedAgent(broker, clock)
        return cls(directory, chosen, clock, broker, store, new_backend(), agent, new_backend)

    async def start(self) -> None:
        await self.agent.start()
        await self.backend.start()

    async def stop(self) -> None:
        stopping = asyncio.create_task(self.backend.stop())
        while not stopping.done():
            await self.clock.advance(0.1)
        await stopping
        for agent in (self.agent, *self.others):
            await agent.stop()
        self.store.close()

    async def kill_backend(self) -> None:
        """End the backend as `kill -9` would: nothing is written any more, and the kernel frees the lock."""
        backend = self.backend
        if backend._working is not None:
            backend._working.remove_done_callback(backend._ended)
            backend._working.cancel()
            await asyncio.wait((backend._working,))
            backend._working = None
        backend._transactions.abandon()
        await backend._bus.close()
        lock, backend._registration._lock = backend._registration._lock, None
        if isinstance(lock, InstanceLock):
            if lock._descriptor is not None:
                os.close(lock._descriptor)
        elif lock is not None:
            lock.release()

    async def stop_backend(self) -> None:
        """End the backend in an orderly way; bus, agents and database stay."""
        stopping = asyncio.create_task(self.backend.stop())
        while not stopping.done():
            await self.clock.advance(0.1)
        await stopping
        await self.backend._bus.close()

    async def start_another_backend(self) -> None:
        """Start a successor of a backend that has ended, on the same bus."""
        self.backend = self.new_backend()
        await self.backend.start()
        await self.pass_time(0.1)

    async def kill(self) -> None:
        """End as `kill -9` would, the agents too."""
        await self.kill_backend()
        for agent in (self.agent, *self.others):
            await agent.stop()
        self.store.close()

    async def pass_time(self, seconds: float = 0.3) -> None:
        """Let everything happen that is due within so many seconds."""
        await self.clock.advance(seconds)

    async def other_agent(self, agent_id: str = "agent-2") -> ScriptedAgent:
        agent = ScriptedAgent(self.broker, self.clock, agent_id)
        await agent.start()
        self.others.append(agent)
        return agent

    async def submit(self, **overrides: Any) -> str:
        submission = await self.backend.submit(wish(**overrides))
        await self.pass_time()
        return submission.operation.operation_id

    async def running(self, **overrides: Any) -> Run:
        """Submit a training and have the agent accept it."""
        await self.submit(**overrides)
        run = await self.agent.take()
        await self.pass_time()
        assert self.get(run).state is State.RUNNING
        return run

    @property
    def backend_blobs(self) -> DirectoryBlobStore:
        return DirectoryBlobStore(self.settings.blobs_dir)

    def register_elsewhere(self) -> None:
        """Register a next version of the usual model, as another process would."""
        with OperationStore.open(self.settings, clock=self.clock) as store:
            persister = ModelPersister(
                store,
                ModelDirectory(self.settings.models_dir),
                self.backend_blobs,
                owner="elsewhere",
                instance="elsewhere",
                retries=RetryPolicy(1.0),
                limit_bytes=2**30,
                render_report=None,
            )
            now = self.clock.now()
            asked = wish()
            request = TrainingRequested(
                operation_id=RandomIds().operation_id(now),
                attempt=1,
                strategy=asked.strategy,
                datasets=asked.datasets,
                seed=asked.seed,
                requested_at=now,
                accept_within_s=60,
            )
            new = NewRequest.of(request)
            store.change(lambda work: dispatching.submit(work, asked, new, 1, "elsewhere"))
            run = Run(request, "claim-elsewhere", "agent-elsewhere")
            model = persister.examine(self.agent.model(run), RandomIds().event_id())
            assert isinstance(model, VerifiedModel)
            operation = persister.register(model)
            assert operation is not None
            assert operation.state is State.COMPLETED

    def get(self, run: Run | str) -> OperationRecord:
        return self.store.get(run if isinstance(run, str) else run.request.operation_id)

    def story(self, run: Run | str) -> list[str]:
        operation_id = run if isinstance(run, str) else run.request.operation_id
        return [str(entry.kind) for entry in self.store.history(operation_id)]


class Line:
    """A connection that can be cut and mended, or blocked as by a broker that is short of memory."""

    def __init__(self, broker: MemoryBroker) -> None:
        self._broker = broker
        self._bus: MemoryBus | None = MemoryBus(broker)
        self.blocked = False

    @property
    def is_cut(self) -> bool:
        return self._bus is None

    async def cut(self) -> None:
        bus, self._bus = self._open, None
        await bus.close()

    def mend(self) -> None:
        self._bus = MemoryBus(self._broker)

    @property
    def _open(self) -> MemoryBus:
        if self._bus is None:
            raise BusUnavailableError
        return self._bus

    async def publish(self, message: Message, **where: Any) -> None:
        if self.blocked:
            raise PublishBlockedError
        await self._open.publish(message, **where)

    async def declare(self, topology: Topology) -> None:
        await self._open.declare(topology)

    async def consume(self, queue: str, **options: Any) -> Any:
        return await self._open.consume(queue, **options)

    async def close(self) -> None:
        if self._bus is not None:
            await self._bus.close()


def _make_tables(settings: Settings) -> None:
    """Put a database where none is: to copy one costs a fifth of making its tables."""
    if settings.database_url is None and not OperationStore.exists(settings):
        settings.home.mkdir(parents=True, exist_ok=True)
        (settings.home / "ktrdr.db").write_bytes(_new_database())


@cache
def _new_database() -> bytes:
    with TemporaryDirectory() as directory:
        settings = settings_in(Path(directory))
        OperationStore.open(settings).close()
        return (settings.home / "ktrdr.db").read_bytes()


@asynccontextmanager
async def started(directory: Path, **options: Any) -> AsyncIterator[World]:
    """A world at work."""
    world = World.make(directory, **options)
    await world.start()
    try:
        yield world
    finally:
        await world.stop()


async def eventually(
    check: Callable[[], T | None] | Callable[[], Awaitable[T | None]], what: str, within_s: float = PATIENCE_S
) -> T:
    """Return the first true value of a check, which is repeated in real time."""
    deadline = time.monotonic() + within_s
    while True:
        value = check()
        if isinstance(value, Awaitable):
            value = await value
        if value:
            return value
        assert time.monotonic() < deadline, f"{what} did not happen within {within_s} s"
        await asyncio.sleep(0.01)


def real_backend(
    settings: Settings, broker: MemoryBroker, **overrides: Any
) -> tuple[Backend, OperationStore]:
    """A backend in real time, with real threads."""
    store = OperationStore.open(settings)
    values: dict[str, Any] = {
        "bus": MemoryBus(broker),
        "store": store,
        "blobs": DirectoryBlobStore(settings.blobs_dir),
        "clock": SystemClock(),
        "ids": RandomIds(),
    }
    return Backend(settings, **{**values, **overrides}), store
