"""A process with two backends: of host agents on a broker, and of the agent in it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ktrdr.backend.falling_back import Refuge
from ktrdr.backend.instances import BROKER_OWNER
from ktrdr.backend.records import HistoryEntry, OperationRecord
from ktrdr.backend.service import Backend
from ktrdr.blobs.directory import DirectoryBlobStore
from ktrdr.bus.memory import MemoryBroker, MemoryBus
from ktrdr.ids import RandomIds
from ktrdr.training.execution_mode_selector import Decision, Mode, Place
from tests.unit.backend_cases import Line, Run, ScriptedAgent, World, inline, started

ON_A_HOST = Decision(Mode.HOST, Place.HOST, "host was asked for; agent-1 serves lane any")


@dataclass
class Both:
    """Both backends, and an agent of each."""

    world: World
    line: Line
    local: Backend
    beside: ScriptedAgent
    """The agent in the process."""

    async def submit(self, **overrides: Any) -> str:
        return await self.world.submit(**{"decision": ON_A_HOST, **overrides})

    async def running(self, **overrides: Any) -> Run:
        """Have the host agent run a training."""
        await self.submit(**overrides)
        run = await self.world.agent.take(lease_s=6.0)
        await self.world.agent.present(run)
        await self.world.pass_time(2)
        return run

    def get(self, operation_id: str) -> OperationRecord:
        return self.world.store.get(operation_id)

    def fell_back(self, operation_id: str) -> list[HistoryEntry]:
        return [one for one in self.world.store.history(operation_id) if one.kind == "fell_back"]

    async def finish_here(self) -> Run:
        """Have the agent in the process take the next request, and make its model."""
        run = await self.beside.take()
        await self.world.pass_time()
        await self.beside.finish(run)
        await self.world.pass_time()
        return run


@asynccontextmanager
async def another_for_hosts(both: Both) -> AsyncIterator[Line]:
    """A backend of the host agents in another process; yields its line to the broker."""
    lines: list[Line] = []

    def wrap(_bus: object) -> Line:
        lines.append(Line(both.world.broker))
        return lines[-1]

    times = {"accept_deadline_s": 10.0, "lease_s": 6.0}
    other = World.make(
        both.world.directory,
        clock=both.world.clock,
        broker=both.world.broker,
        wrap=wrap,
        backend={"owner": BROKER_OWNER},
        **times,
    )
    await other.backend.start()
    try:
        yield lines[0]
    finally:
        await other.stop()


@asynccontextmanager
async def both_backends(tmp_path: Path, **settings: Any) -> AsyncIterator[Both]:
    lines: list[Line] = []

    def wrap(bus: MemoryBus) -> Line:
        lines.append(Line(bus._broker))
        return lines[-1]

    refuge = Refuge("local-1", max_attempts=3)
    hosts = {"owner": BROKER_OWNER, "refuge": refuge}
    times = {"accept_deadline_s": 10.0, "lease_s": 6.0}
    async with started(tmp_path, backend=hosts, wrap=wrap, **times, **settings) as world:
        broker = MemoryBroker(world.clock)
        bus = MemoryBus(broker)
        local = Backend(
            world.settings,
            bus=bus,
            store=world.store,
            blobs=DirectoryBlobStore(world.settings.blobs_dir),
            clock=world.clock,
            ids=RandomIds(),
            offload=inline,
            instance=refuge.instance,
        )
        local._feed._poll_s = 0.05
        beside = ScriptedAgent(broker, world.clock, "embedded-1")
        await beside.start()
        await local.start()
        try:
            yield Both(world, lines[0], local, beside)
        finally:
            stopping = asyncio.create_task(local.stop())
            while not stopping.done():
                await world.clock.advance(0.1)
            await stopping
            await beside.stop()
            await bus.close()
