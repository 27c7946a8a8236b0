"""The HTTP API over a real backend, database, bus and disk; an agent follows a script."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx
from fastapi import FastAPI
from sqlalchemy import text

from ktrdr.app.cleaning import cleaner
from ktrdr.app.operating import dead_letter_office
from ktrdr.app.trainings import Trainings
from ktrdr.backend.api.app import create_app
from ktrdr.backend.api.service import Service
from ktrdr.backend.audit import AuditEntry, audit_entries, witness_by
from ktrdr.backend.records import OperationRecord
from ktrdr.backend.service import Backend
from ktrdr.backend.states import State
from ktrdr.backend.store import OperationStore
from ktrdr.backend.tokens import AccessTokens, Role
from ktrdr.blobs.directory import DirectoryBlobStore
from ktrdr.bus.dead_letters import dead_letter
from ktrdr.bus.memory import MemoryBroker, MemoryBus
from ktrdr.bus.topology import DEAD, lane_queue, shared_topology
from ktrdr.clock import SystemClock
from ktrdr.events import DatasetRef
from ktrdr.events.message import Message
from ktrdr.ids import RandomIds
from ktrdr.settings import Settings
from tests.unit.backend_cases import PATIENCE_S, ScriptedAgent, settings_in, wish

NOBODY_READS = lane_queue("gpu")
"""What is redriven is still there."""
REPOSITORY = Path(__file__).parents[2]
URL = "http://127.0.0.1"
BY_A_TEST = witness_by("a test", "needed for a test")


@dataclass(frozen=True)
class Api:
    """An installation that is served."""

    settings: Settings
    store: OperationStore
    broker: MemoryBroker
    bus: MemoryBus
    """That of the backend."""
    backend: Backend
    agent: ScriptedAgent
    service: Service
    app: FastAPI

    @classmethod
    def make(cls, directory: Path, *, unprotected: bool = False, **settings: Any) -> "Api":
        """Wire it; nothing runs yet."""
        places = {"data_dir": REPOSITORY / "data", "strategies_dir": REPOSITORY / "strategies"}
        chosen = settings_in(directory, **{**places, "device": "cpu", **settings})
        broker = MemoryBroker(SystemClock())
        chosen.home.mkdir(parents=True)
        (chosen.home / "ktrdr.db").write_bytes(_migrated())
        return cls._of(chosen, broker, ScriptedAgent(broker, SystemClock()), unprotected=unprotected)

    @classmethod
    def _of(
        cls, settings: Settings, broker: MemoryBroker, agent: ScriptedAgent, *, unprotected: bool
    ) -> "Api":
        ids, bus = RandomIds(), MemoryBus(broker)
        store, blobs = OperationStore.open(settings), DirectoryBlobStore(settings.blobs_dir)
        backend = Backend(settings, bus=bus, store=store, blobs=blobs, clock=SystemClock(), ids=ids)
        trainings = Trainings(settings, store, blobs=blobs, local=backend, hosts=None, ids=ids)
        letters = dead_letter_office(settings, bus)
        service = Service(settings, store, backend, trainings, letters, cleaner(settings))
        app = create_app(service=service, unprotected=unprotected)
        return cls(settings, store, broker, bus, backend, agent, service, app)

    def successor(self) -> "Api":
        """Return the same installation as the next process has it; broker and agent stay."""
        return self._of(self.settings, self.broker, self.agent, unprotected=False)

    @asynccontextmanager
    async def at_work(self) -> AsyncIterator["Api"]:
        """Run backend and agent as long as the block runs."""
        await self.agent.start()
        try:
            async with self.backend:
                yield self
        finally:
            await self.agent.stop()

    def token(self, role: Role = Role.OPERATOR) -> str:
        """Make a token and return it."""
        return AccessTokens(self.store).create(f"a {role}", role, witness=BY_A_TEST).secret

    def client(self, token: str | None = None, role: Role = Role.OPERATOR) -> httpx.AsyncClient:
        """Return a client that shows a token of its own, or the one that is given; empty: none."""
        shown = self.token(role) if token is None else token
        headers = {"Authorization": f"Bearer {shown}"} if shown else {}
        return httpx.AsyncClient(transport=httpx.ASGITransport(self.app), base_url=URL, headers=headers)

    async def submitted(self, **overrides: Any) -> str:
        """Submit a training that no agent of any kind has, and return its id."""
        return (await self.backend.submit(wish(**overrides))).operation.operation_id

    async def bury(
        self, *messages: Message, reason: str = "cannot be read", queue: str = NOBODY_READS
    ) -> None:
        """Have messages be dead letters, as if they had died in that queue."""
        await self.bus.declare(shared_topology())
        for message in messages:
            await self.bus.publish(
                dead_letter(message, reason=reason, queue=queue),
                exchange=DEAD,
                routing_key="any",
                mandatory=True,
                timeout_s=PATIENCE_S,
            )

    def audited(self) -> list[AuditEntry]:
        """Return what HTTP requests have written into the audit log, oldest first."""
        entries = audit_entries(self.store, limit=100)
        return [each for each in reversed(entries) if each.status is not None]

    async def until(self, operation_id: str, *states: State) -> OperationRecord:
        """Return the operation when it is in one of the states."""
        async with asyncio.timeout(PATIENCE_S):
            async for record in self.backend.watch(operation_id):
                if record.state in states:
                    return record
        raise AssertionError("it has ended otherwise")


def bars_of(api: Api, content: bytes = b"bars") -> tuple[DatasetRef, ...]:
    """Put what stands for the bars of a training into the blob store."""
    blob = DirectoryBlobStore(api.settings.blobs_dir).put(content)
    return tuple(each.model_copy(update={"blob": blob}) for each in wish().datasets)


async def cancelled(api: Api, **overrides: Any) -> str:
    """Submit a training whose bars are there, cancel it, and return its id."""
    operation_id = await api.submitted(**{"datasets": bars_of(api), **overrides})
    await api.backend.cancel(operation_id, "enough")
    return operation_id


@contextmanager
def no_audit_entries(store: OperationStore) -> Iterator[None]:
    """Let nothing be written into the audit log as long as the block runs."""
    refuse = "CREATE TRIGGER no_entries BEFORE INSERT ON audit_log BEGIN SELECT RAISE(ABORT, 'no'); END"
    store.change(lambda work: work.connection.execute(text(refuse)) and None)
    yield
    store.change(lambda work: work.connection.execute(text("DROP TRIGGER no_entries")) and None)


@cache
def _migrated() -> bytes:
    """A database whose schema is up to date, so that not every test has to bring one there."""
    with TemporaryDirectory() as directory:
        settings = settings_in(Path(directory))
        OperationStore.open(settings).close()
        return (settings.home / "ktrdr.db").read_bytes()
