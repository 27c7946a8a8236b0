"""The backend on a real broker: nothing is lost, given up or taken for granted that the broker has lost."""

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from ktrdr.backend.instances import BROKER_OWNER
from ktrdr.backend.records import AgentStatus, OperationRecord
from ktrdr.backend.service import Backend
from ktrdr.backend.states import State
from ktrdr.backend.store import OperationStore
from ktrdr.backend.submitting import Submitter
from ktrdr.blobs.directory import DirectoryBlobStore
from ktrdr.bus.rabbitmq import RabbitMQBus
from ktrdr.bus.rabbitmq_arguments import wire_name
from ktrdr.bus.topology import BACKEND_EVENTS, DEAD_LETTERS, lane_queue
from ktrdr.clock import SystemClock
from ktrdr.errors import BusError
from ktrdr.events import FailureCause
from ktrdr.ids import RandomIds
from ktrdr.settings import Settings
from tests.broker.node import PrivateNode
from tests.broker.proxy import Proxy
from tests.unit.backend_cases import Run, ScriptedAgent, eventually, settings_in, wish

pytestmark = pytest.mark.broker

PATIENCE_S = 60.0


@dataclass
class Installation:
    """Names of the test's own on a broker, a database, and what speaks over them."""

    node: PrivateNode
    settings: Settings
    store: OperationStore
    prefix: str = field(default_factory=lambda: f"test-{secrets.token_hex(6)}")

    def connect(self, name: str) -> RabbitMQBus:
        return RabbitMQBus(self.node.amqp_url(), name=name, prefix=self.prefix)

    @asynccontextmanager
    async def backend(self, **options: Any) -> AsyncIterator[Backend]:
        bus = self.connect("backend")
        backend = Backend(
            self.settings,
            bus=bus,
            store=self.store,
            blobs=DirectoryBlobStore(self.settings.blobs_dir),
            clock=SystemClock(),
            ids=RandomIds(),
            **{"owner": BROKER_OWNER, "user": "guest", **options},
        )
        try:
            async with backend:
                yield backend
        finally:
            await bus.close()

    @asynccontextmanager
    async def agent(self, agent_id: str = "agent-1", **options: Any) -> AsyncIterator[ScriptedAgent]:
        agent = ScriptedAgent(None, SystemClock(), agent_id, bus=self.connect(agent_id), **options)
        try:
            await _ready(agent)
            yield agent
        finally:
            await agent.stop()

    async def submit(self, **overrides: Any) -> str:
        submitter = Submitter(self.settings, self.store)
        submission = await asyncio.to_thread(lambda: submitter.submit(wish(**overrides)))
        return submission.operation.operation_id

    def get(self, run: Run | str) -> OperationRecord:
        return self.store.get(run if isinstance(run, str) else run.request.operation_id)

    async def reaches(self, run: Run | str, state: State) -> OperationRecord:
        await eventually(lambda: self.get(run).state is state, f"being {state}", PATIENCE_S)
        return self.get(run)

    def notes(self, operation_id: str, kind: str) -> list[str]:
        return [entry.message for entry in self.store.history(operation_id) if entry.kind == kind]

    async def dead_letters(self) -> list[str]:
        bus = self.connect("test")
        reasons = []
        while (delivery := await bus.get(DEAD_LETTERS)) is not None:
            reasons.append(str(delivery.message.headers["x-ktrdr-reason"]))
            await delivery.ack()
        await bus.close()
        return reasons


@asynccontextmanager
async def installed(node: PrivateNode, directory: Path, **settings: Any) -> AsyncIterator[Installation]:
    chosen = settings_in(directory, **settings)
    with OperationStore.open(chosen) as store:
        around = Installation(node, chosen, store)
        yield around
    if not node.is_running:
        await asyncio.to_thread(node.start)
    for kind, delete in (
        (node.management.queues, node.management.delete_queue),
        (node.management.exchanges, node.management.delete_exchange),
    ):
        for found in await asyncio.to_thread(kind):
            if found["name"].startswith(f"{around.prefix}."):
                await asyncio.to_thread(delete, found["name"])


async def _ready(agent: ScriptedAgent) -> None:
    """Start it; a broker that has just started finds its queues one after the other."""

    async def has_started() -> bool:
        try:
            await agent.start()
        except BusError:
            return False
        return True

    await eventually(has_started, "starting an agent", PATIENCE_S)


async def test_a_training_goes_over_the_broker_and_back(private_node: PrivateNode, tmp_path: Path) -> None:
    async with installed(private_node, tmp_path) as around, around.backend(), around.agent() as agent:
        operation_id = await around.submit()
        run = await agent.take()
        await agent.present(run)
        await around.reaches(run, State.RUNNING)
        await agent.finish(run)
        ended = await around.reaches(operation_id, State.COMPLETED)
        assert ended.model == "momentum/EURUSD_1h_v1"
        await eventually(agent.persisted, "the answer")
        await agent.present()
        await eventually(
            lambda: [a.status for a in around.store.agents()] == [AgentStatus.READY], "being known"
        )
        assert await around.dead_letters() == []


async def test_what_nobody_takes_comes_back_and_says_why(private_node: PrivateNode, tmp_path: Path) -> None:
    async with installed(private_node, tmp_path, accept_deadline_s=1.0) as around, around.backend():
        operation_id = await around.submit(lane="gpu")
        await eventually(lambda: around.notes(operation_id, "not_accepted"), "coming back", PATIENCE_S)
        assert around.notes(operation_id, "not_accepted")[0] == (
            "nobody accepted attempt 1 within 1 s: no agent serves lane gpu; it is requested again"
        )
        assert around.get(operation_id).attempt == 1


async def test_what_kills_whoever_takes_it_fails_with_its_story(
    private_node: PrivateNode, tmp_path: Path
) -> None:
    async with installed(private_node, tmp_path, retry_backoff_s=0.0) as around, around.backend():
        operation_id = await around.submit(max_attempts=1)
        for _ in range(6):
            bus = around.connect("doomed")
            consumer = await bus.consume(lane_queue("any"), prefetch=1, consumer_tag="doomed")
            async with asyncio.timeout(PATIENCE_S):
                await anext(consumer)
            await bus.close()
        ended = await around.reaches(operation_id, State.FAILED)
        assert ended.cause is FailureCause.NOT_ACCEPTED
        assert "killed who took it" in str(ended.message)


async def test_a_broker_that_is_killed_costs_no_lease_and_no_result(
    private_node: PrivateNode, tmp_path: Path
) -> None:
    async with installed(private_node, tmp_path, lease_s=2.0) as around, around.backend():
        async with around.agent() as agent:
            await around.submit()
            run = await agent.take(lease_s=2.0)
            await around.reaches(run, State.RUNNING)
        await asyncio.to_thread(private_node.kill)
        waiting = await around.submit()
        await asyncio.sleep(4.0)  # two leases: it is what must change nothing
        assert (around.get(run).state, around.get(run).attempt) == (State.RUNNING, 1)
        assert around.get(waiting).state is State.PENDING
        await asyncio.to_thread(private_node.start)
        async with around.agent() as agent:
            await agent.finish(run)
            assert (await around.reaches(run, State.COMPLETED)).attempt == 1
            second = await agent.take()
            assert second.request.operation_id == waiting


async def test_a_broker_that_takes_no_messages_costs_no_lease(
    private_node: PrivateNode, tmp_path: Path
) -> None:
    settings = {"lease_s": 2.0, "publish_timeout_s": 1.0}
    async with (
        installed(private_node, tmp_path, **settings) as around,
        around.backend(),
        around.agent() as agent,
    ):
        await around.submit()
        run = await agent.take(lease_s=2.0)
        await around.reaches(run, State.RUNNING)
        await asyncio.to_thread(private_node.set_memory_alarm, True)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(agent.present(run), 0.5)
        await asyncio.sleep(6.0)  # three leases: they are what must change nothing
        assert (around.get(run).state, around.get(run).attempt) == (State.RUNNING, 1)
        await asyncio.to_thread(private_node.set_memory_alarm, False)
        await agent.finish(run)
        assert (await around.reaches(run, State.COMPLETED)).attempt == 1


async def test_a_queue_that_is_deleted_is_read_again(private_node: PrivateNode, tmp_path: Path) -> None:
    async with installed(private_node, tmp_path) as around, around.backend(), around.agent() as agent:
        await around.submit()
        run = await agent.take()
        await around.reaches(run, State.RUNNING)
        queue = wire_name(BACKEND_EVENTS, around.prefix)
        await asyncio.to_thread(private_node.management.delete_queue, queue)

        event = agent.model(run)

        async def completed() -> bool:
            # As an agent's spool does, which repeats it until it is answered: the journal has taken it.
            await agent.say(event)
            return around.get(run).state is State.COMPLETED

        await eventually(completed, "being completed", PATIENCE_S)


async def test_who_speaks_for_others_is_a_dead_letter_with_the_reason(
    private_node: PrivateNode, tmp_path: Path
) -> None:
    async with (
        installed(private_node, tmp_path) as around,
        around.backend(user="backend"),
        around.agent() as impostor,
        around.agent("guest", lanes=()) as honest,
    ):
        operation_id = await around.submit()
        await impostor.take()
        await honest.present()
        await eventually(lambda: [a.agent_id for a in around.store.agents()] == ["guest"], "hearing")
        reasons: list[str] = []

        async def refused() -> bool:
            reasons.extend(await around.dead_letters())
            return bool(reasons)

        await eventually(refused, "refusing")
        assert reasons == ["The user guest may not speak for the agent agent-1."]
        assert around.get(operation_id).state is State.QUEUED


async def test_a_cancel_in_another_process_reaches_the_agent(
    private_node: PrivateNode, tmp_path: Path
) -> None:
    async with installed(private_node, tmp_path) as around, around.backend(), around.agent() as agent:
        with OperationStore.open(around.settings) as elsewhere:
            for _ in range(3):
                await around.submit()
                run = await agent.take()
                await around.reaches(run, State.RUNNING)
                await asyncio.to_thread(elsewhere.cancel, run.request.operation_id, "enough")
                await eventually(agent.stops, "being told")
                agent.told.clear()
                await agent.cancelled(run)
                await around.reaches(run, State.CANCELLED)


@pytest.mark.postgres
@pytest.mark.fault
@pytest.mark.long
async def test_what_a_backend_cannot_do_without_its_database_another_does(
    private_node: PrivateNode, tmp_path: Path, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ktrdr.backend.outage._PATIENCE_S", 0.0)

    async with installed(private_node, tmp_path, database_url=postgres_url) as direct:
        queue = wire_name(BACKEND_EVENTS, direct.prefix)

        def readers() -> int:
            consumers = private_node.management.consumers()
            return sum(consumer["queue"]["name"] == queue for consumer in consumers)

        async def are(wanted: int) -> None:
            async def found() -> bool:
                return await asyncio.to_thread(readers) == wanted

            await eventually(found, f"{wanted} reading", PATIENCE_S)

        with Proxy(postgres_url) as proxy:
            settings = settings_in(tmp_path / "other", database_url=proxy.url)
            with OperationStore.open(settings) as store:
                other = Installation(private_node, settings, store, prefix=direct.prefix)
                async with other.backend(), other.agent() as agent:
                    await other.submit()
                    run = await agent.take()
                    await other.reaches(run, State.RUNNING)
                    proxy.refuse()
                    proxy.reset()  # those that are open would go on
                    await agent.finish(run)
                    await are(0)
                    async with direct.backend():
                        ended = await direct.reaches(run, State.COMPLETED)
                        assert ended.attempt == 1
                        proxy.restore()
                        await are(2)
        assert await direct.dead_letters() == []
