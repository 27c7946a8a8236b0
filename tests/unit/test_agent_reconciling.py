"""Agents and a backend that lose each other at any moment agree in the end; nothing waits for a lease."""

import asyncio
import os
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from benchmarks.noop_runner import NoopRunner
from host_agent.agent import HostAgent
from host_agent.directory import AgentDirectory, open_directory
from host_agent.endings import Cancelled, Ending
from host_agent.frames import LogLine
from host_agent.options import AgentOptions
from ktrdr.backend.instances import BROKER_OWNER
from ktrdr.backend.records import HistoryKind
from ktrdr.backend.service import Backend
from ktrdr.backend.states import State
from ktrdr.backend.store import OperationStore
from ktrdr.blobs.directory import DirectoryBlobStore
from ktrdr.bus.memory import MemoryBroker, MemoryBus
from ktrdr.bus.topology import BACKEND_EVENTS, DEAD_LETTERS, lane_queue
from ktrdr.clock import SystemClock
from ktrdr.errors import (
    BusUnavailableError,
    PublishBlockedError,
    PublishNackedError,
    PublishTimeoutError,
    UnroutableError,
)
from ktrdr.events import Message, TrainingAccepted
from ktrdr.ids import RandomIds
from ktrdr.training.job import TrainingJob
from ktrdr.training.progress import Progress
from tests.unit.agent_cases import UnreliableBus, eventually
from tests.unit.backend_cases import settings_in, wish

LEASE_S = 600.0
"""No test waits for it."""
SEEDS = range(int(os.environ.get("KTRDR_TEST_SEEDS", "3")))
UNKNOWN = (PublishTimeoutError, PublishBlockedError, BusUnavailableError)
REFUSED = (UnroutableError, PublishNackedError)


class BriefRunner(NoopRunner):
    """A runner whose trainings take a moment, and can be cancelled in it."""

    def __init__(self, rng: random.Random) -> None:
        super().__init__()
        self._rng = rng

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
        try:
            async with asyncio.timeout(self._rng.uniform(0, 0.05)):
                await cancel.wait()
            return Cancelled()
        except TimeoutError:
            return await super().run(
                job, run_id=run_id, bundle=bundle, cancel=cancel, on_progress=on_progress, on_log=on_log
            )


@dataclass
class Member:
    """An agent that is killed, started and cut off; its directory stays."""

    agents_dir: Path
    name: str
    broker: MemoryBroker
    blobs: DirectoryBlobStore
    rng: random.Random
    faults: Callable[[UnreliableBus], None]
    slots: int = 2
    agent: HostAgent | None = None
    bus: UnreliableBus | None = None
    directory: AgentDirectory | None = None
    kills: int = field(default=0)

    async def start(self) -> None:
        self.directory = open_directory(self.agents_dir, self.name)
        self.bus = UnreliableBus(MemoryBus(self.broker))
        self.faults(self.bus)
        self.agent = HostAgent(
            bus=self.bus,
            blobs=self.blobs,
            directory=self.directory,
            options=AgentOptions(
                slots=self.slots, lease_s=LEASE_S, presence_interval_s=0.2, publish_timeout_s=0.5
            ),
            clock=SystemClock(),
            ids=RandomIds(),
            new_runner=lambda: BriefRunner(self.rng),
        )
        await self.agent.start()

    async def kill(self) -> None:
        """End it without anything of what it does when it is stopped."""
        assert self.agent is not None
        assert self.bus is not None
        assert self.directory is not None
        main = self.agent._main
        assert main is not None
        main.cancel()
        await asyncio.gather(main, return_exceptions=True)
        await self.bus.close()
        self.directory.close()
        self.kills += 1

    async def stop(self) -> None:
        assert self.agent is not None
        assert self.bus is not None
        assert self.directory is not None
        await self.agent.stop(grace_s=10)
        await self.bus.close()
        self.directory.close()


@asynccontextmanager
async def backend_on(broker: MemoryBroker, root: Path) -> AsyncIterator[tuple[Backend, OperationStore]]:
    settings = settings_in(root, lease_s=LEASE_S, max_attempts=20, retry_backoff_s=0.01)
    with OperationStore.open(settings) as store:
        bus = MemoryBus(broker)
        backend = Backend(
            settings,
            bus=bus,
            store=store,
            blobs=DirectoryBlobStore(settings.blobs_dir),
            clock=SystemClock(),
            ids=RandomIds(),
            owner=BROKER_OWNER,
        )
        async with backend:
            yield backend, store
        await bus.close()


def wishes(blobs: DirectoryBlobStore, number: int) -> list[object]:
    """Return so many different trainings, with data that is there."""
    sample = wish()
    bars = blobs.put(b"bars")
    datasets = (sample.datasets[0].model_copy(update={"blob": bars}),)
    return [wish(datasets=datasets, seed=seed) for seed in range(number)]


@pytest.mark.parametrize(
    ("error", "stored"),
    [
        *((error, stored) for error in UNKNOWN for stored in (True, False)),
        *((error, False) for error in REFUSED),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else "stored" if value else "not stored",
)
@pytest.mark.parametrize("reconnects", [True, False], ids=["reconnects", "stays"])
async def test_an_acceptance_that_fails_costs_neither_an_attempt_nor_a_lease(
    tmp_path: Path, error: type[Exception], stored: bool, reconnects: bool
) -> None:
    broker = MemoryBroker()
    fail_first = [True]

    def fail(bus: UnreliableBus) -> Callable[[Message], Exception | None]:
        def check(message: Message) -> Exception | None:
            if message.type != TrainingAccepted.type_name() or not fail_first:
                return None
            fail_first.clear()
            if reconnects:
                lost.set()
            return error()

        return check

    def arrange(bus: UnreliableBus) -> None:
        if stored:
            bus.after = fail(bus)
        else:
            bus.refuse = fail(bus)

    lost = asyncio.Event()
    async with backend_on(broker, tmp_path) as (backend, store):
        blobs = DirectoryBlobStore(tmp_path / "home" / "blobs")
        rng = random.Random(1)
        members = [Member(tmp_path / "agents", name, broker, blobs, rng, arrange) for name in ("one", "two")]
        for member in members:
            await member.start()

        async def lose() -> None:
            await lost.wait()
            for member in members:
                assert member.bus is not None
                await member.bus.lose_connection(broker)

        losing = asyncio.create_task(lose())
        [only] = wishes(blobs, 1)
        operation = (await backend.submit(only)).operation  # type: ignore[arg-type]
        await eventually(lambda: store.get(operation.operation_id).state.terminal)
        ended = store.get(operation.operation_id)
        assert (ended.state, ended.attempt) == (State.COMPLETED, 1)
        await eventually(lambda: broker.queue_depth(lane_queue("any")) == 0)
        losing.cancel()
        for member in members:
            await member.stop()


@pytest.mark.slow
@pytest.mark.fault
@pytest.mark.parametrize("seed", SEEDS)
async def test_whatever_is_lost_every_request_ends_once_and_nothing_is_left(
    tmp_path: Path, seed: int
) -> None:
    rng = random.Random(seed)
    broker = MemoryBroker()
    is_calm = False

    def unlucky(message: Message) -> Exception | None:
        if is_calm:
            return None
        chance = rng.random()
        if chance < 0.1:
            return rng.choice(UNKNOWN)()
        return rng.choice(REFUSED)() if chance < 0.12 else None

    def arrange(bus: UnreliableBus) -> None:
        bus.refuse = bus.after = unlucky

    async with backend_on(broker, tmp_path) as (backend, store):
        blobs = DirectoryBlobStore(tmp_path / "home" / "blobs")
        members = [
            Member(tmp_path / "agents", name, broker, blobs, rng, arrange) for name in ("one", "two", "three")
        ]
        for member in members:
            await member.start()
        asked = [(await backend.submit(each)).operation.operation_id for each in wishes(blobs, 40)]  # type: ignore[arg-type]
        cancelled = set(rng.sample(asked, 8))

        def unfinished() -> list[str]:
            return [operation_id for operation_id in asked if not store.get(operation_id).state.terminal]

        for _ in range(40):
            await asyncio.sleep(rng.uniform(0, 0.05))
            member = rng.choice(members)
            match rng.randrange(3):
                case 0:
                    await member.kill()
                    await member.start()
                case 1:
                    assert member.bus is not None
                    await member.bus.lose_connection(broker)
                case _ if cancelled:
                    await backend.cancel(cancelled.pop(), "by the test")
        is_calm = True
        await eventually(lambda: not unfinished(), f"unfinished: {unfinished()}")
        for member in members:
            assert member.agent is not None
            agent = member.agent
            await eventually(lambda agent=agent: not list(agent._attempts), f"{member.name} still holds")  # type: ignore[misc]
        await eventually(lambda: broker.queue_depth(lane_queue("any")) == 0, "requests in the lane")
        await eventually(lambda: broker.queue_depth(BACKEND_EVENTS) == 0)
        assert broker.queue_depth(DEAD_LETTERS) == 0
        for operation_id in asked:
            operation = store.get(operation_id)
            history = [entry.kind for entry in store.history(operation_id)]
            assert operation.state in (State.COMPLETED, State.CANCELLED), history
            assert history.count(HistoryKind.MODEL_PERSISTED) == (operation.state is State.COMPLETED)
            assert HistoryKind.LEASE_EXPIRED not in history
        for member in members:
            await member.stop()
            assert not list((tmp_path / "agents" / member.name / "claims").iterdir())
