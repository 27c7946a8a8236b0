"""Two backends at once on one database and one broker, each with a line of its own."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import func, select

from ktrdr.backend.instances import BROKER_OWNER
from ktrdr.backend.records import HistoryEntry
from ktrdr.backend.store import OperationStore
from ktrdr.backend.submitting import Submitter
from ktrdr.backend.tables import outbox
from ktrdr.bus.memory import MemoryBroker
from ktrdr.events.message import Message
from tests.contract.virtual_clock import VirtualClock
from tests.unit.backend_cases import Line, Run, ScriptedAgent, World, wish

LEASE_S = 6.0
ACCEPT_WITHIN_S = 20.0


class Recorded(Line):
    """A line that keeps what went over it."""

    def __init__(self, broker: MemoryBroker) -> None:
        super().__init__(broker)
        self.published: list[Message] = []
        self.hangs: asyncio.Event | None = None
        """If there is one, nothing gets through before it is set."""

    async def publish(self, message: Message, **where: Any) -> None:
        if self.hangs is not None:
            await self.hangs.wait()
        await super().publish(message, **where)
        if message.type != "ktrdr.probe":
            self.published.append(message)


@dataclass
class Together:
    """Two worlds, as of two processes, in which the agent of the first is the only one."""

    first: World
    second: World
    lines: list[Recorded] = field(default_factory=list)

    @property
    def agent(self) -> ScriptedAgent:
        return self.first.agent

    @property
    def published(self) -> list[str]:
        """The event ids of all that was published."""
        return [message.message_id for line in self.lines for message in line.published]

    async def pass_time(self, seconds: float = 0.3) -> None:
        await self.first.pass_time(seconds)

    async def running(self) -> Run:
        """Submit a training at the second, and have the agent accept it."""
        await self.second.submit()
        run = await self.agent.take(lease_s=LEASE_S)
        await self.pass_time()
        return run

    def submit_elsewhere(self, **overrides: Any) -> str:
        """Submit as a process does that has no bus."""
        with OperationStore.open(self.first.settings, clock=self.first.clock) as store:
            submitter = Submitter(self.first.settings, store, clock=self.first.clock)
            return submitter.submit(wish(**overrides)).operation.operation_id

    def history(self, operation_id: str, kind: str) -> list[HistoryEntry]:
        return [entry for entry in self.first.store.history(operation_id) if entry.kind == kind]

    def unsent(self) -> int:
        query = select(func.count()).select_from(outbox).where(outbox.c.sent_at.is_(None))
        with self.second.store.reading() as connection:
            return int(connection.execute(query).scalar_one())


@asynccontextmanager
async def together(
    directory: Path, *, backend: dict[str, Any] | None = None, **settings: Any
) -> AsyncIterator[Together]:
    """Two backends at work."""
    clock = VirtualClock()
    broker = MemoryBroker(clock)
    lines: list[Recorded] = []

    def wrap(_bus: object) -> Recorded:
        lines.append(Recorded(broker))
        return lines[-1]

    times = {"lease_s": LEASE_S, "accept_deadline_s": ACCEPT_WITHIN_S}
    options = {"clock": clock, "broker": broker, "wrap": wrap, **times, **settings}
    worlds = [
        World.make(directory, backend={"owner": BROKER_OWNER, **(backend or {})}, **options) for _ in range(2)
    ]
    both = Together(*worlds, lines)
    await both.first.start()
    await both.pass_time(0.1)
    await both.second.backend.start()
    await both.pass_time()
    try:
        yield both
    finally:
        for world in worlds:
            await world.stop()
