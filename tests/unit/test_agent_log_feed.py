"""What an agent logs about its attempts is published, and is in nobody's way."""

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from host_agent.agent import HostAgent
from host_agent.attempt_log import CAPACITY
from host_agent.endings import Failed
from host_agent.frames import LogLine
from host_agent.journal import Claim
from host_agent.log_feed import LogFeed
from ktrdr.bus.memory import MemoryBus
from ktrdr.bus.publisher import EventPublisher
from ktrdr.bus.topology import logs_queue, logs_topology, shared_topology
from ktrdr.clock import SystemClock
from ktrdr.errors import AccessRefusedError, BusUnavailableError
from ktrdr.events import (
    FailureCause,
    LogEntry,
    Message,
    ModelReady,
    TrainingFailed,
    TrainingLogged,
    TrainingProgress,
    decode,
)
from ktrdr.ids import RandomIds
from ktrdr.logs import configure_logging
from ktrdr.training.progress import Progress, Stage
from tests.unit.agent_cases import Model, QuickClock, ScriptedRunner, UnreliableBus, World, eventually
from tests.unit.agent_fixtures import agent, around, directory, runner

__all__ = ["agent", "around", "directory", "runner"]

LOGGED = TrainingLogged.type_name()
FLOOD = 20_000


class Reader:
    """Reads what is logged over the bus."""

    def __init__(self) -> None:
        self.events: list[TrainingLogged] = []

    @property
    def lines(self) -> list[LogEntry]:
        return [line for event in self.events for line in event.lines]

    @property
    def said(self) -> list[str]:
        return [line.event for line in self.lines]

    async def until(self, event: str) -> None:
        await eventually(lambda: event in self.said, f"{event}: {self.said}")


@pytest.fixture(autouse=True)
def quiet_log() -> None:
    configure_logging("error")


@pytest.fixture
async def reader(around: World) -> AsyncIterator[Reader]:
    async with reading(around) as reader:
        yield reader


@asynccontextmanager
async def reading(around: World) -> AsyncIterator[Reader]:
    reader, bus = Reader(), MemoryBus(around.broker)
    await bus.declare(shared_topology())
    await bus.declare(logs_topology("test"))
    consumer = await bus.consume(logs_queue("test"), prefetch=100, consumer_tag="t", acknowledge=False)

    async def read() -> None:
        async for delivery in consumer:
            event = decode(delivery.message).event
            assert isinstance(event, TrainingLogged)
            reader.events.append(event)

    task = asyncio.create_task(read())
    yield reader
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await bus.close()


async def test_the_steps_of_agent_and_executor_are_told_with_who_said_them(
    around: World, agent: HostAgent, runner: ScriptedRunner, reader: Reader
) -> None:
    request = await around.backend.ask(attempt=3)
    await eventually(lambda: runner.log)
    assert runner.log is not None
    runner.log(LogLine(level="info", event="[1/8] Loading data", fields={"rows": 3}))
    runner.finish(Model())
    await reader.until("told the backend")
    assert [(line.source, line.event) for line in reader.lines if line.event.startswith("[")] == [
        ("agent", "[1/4] Accepting the training"),
        ("agent", "[2/4] Fetching its data"),
        ("agent", "[3/4] Running the executor"),
        ("executor", "[1/8] Loading data"),
        ("agent", "[4/4] Delivering how it ended"),
    ]
    assert [line.number for line in reader.lines] == list(range(1, len(reader.lines) + 1))
    [event] = {(e.operation_id, e.attempt, e.agent_id) for e in reader.events}
    assert event == (request.operation_id, 3, "agent")


async def test_why_an_attempt_failed_is_in_its_log_and_the_next_has_its_own(
    around: World, agent: HostAgent, runner: ScriptedRunner, reader: Reader
) -> None:
    runner.finish(ZeroDivisionError("a defect"))
    await around.backend.ask()
    await around.backend.event(TrainingFailed)
    await reader.until("told the backend")
    [failure] = [line for line in reader.lines if line.level == "error"]
    assert "ZeroDivisionError: a defect" in str(failure.fields["exception"])
    first = {event.claim_id for event in reader.events}
    reader.events.clear()
    runner.finish(Failed(cause=FailureCause.DATA_ERROR, message="m"))
    await around.backend.ask()
    await reader.until("told the backend")
    assert {event.claim_id for event in reader.events}.isdisjoint(first)
    assert reader.lines[0].number == 1


async def test_a_runner_that_floods_delays_neither_progress_nor_its_model(
    around: World, agent: HostAgent, runner: ScriptedRunner, reader: Reader
) -> None:
    await around.backend.ask()
    await eventually(lambda: runner.log and runner.progress)
    assert runner.log is not None
    assert runner.progress is not None
    feed, heard = agent._logs, around.backend.events
    for number in range(FLOOD):
        runner.log(LogLine(level="info", event=f"flood {number}"))
        if number % 1000 == 0:
            assert sum(len(log) for log in feed._logs.values()) <= CAPACITY
            runner.progress(Progress(stage=Stage.TRAIN, fraction=number / FLOOD, epoch=number))
            await eventually(lambda epoch=number: epoch in [event.epoch for event in heard(TrainingProgress)])  # type: ignore[misc]
    runner.finish(Model())
    await around.backend.event(ModelReady)
    # What was left out is known, and how it ended was not.
    await reader.until("told the backend")
    assert reader.lines[-1].number > FLOOD > 2 * len(reader.lines)
    assert "[4/4] Delivering how it ended" in reader.said


async def test_an_agent_that_stops_says_the_rest_first(
    around: World, agent: HostAgent, runner: ScriptedRunner, reader: Reader
) -> None:
    await around.backend.ask()
    await eventually(lambda: runner.log)
    assert runner.log is not None
    for number in range(CAPACITY // 2):
        runner.log(LogLine(level="info", event=f"line {number}"))
    await agent.stop()
    await reader.until("told the backend")
    assert f"line {CAPACITY // 2 - 1}" in reader.said
    numbers = [line.number for line in reader.lines]
    assert numbers == list(range(1, len(numbers) + 1))


async def test_a_broker_that_refuses_logs_refuses_nothing_else(
    around: World, directory: object, runner: ScriptedRunner
) -> None:
    bus = UnreliableBus(MemoryBus(around.broker))
    refused = itertools.count()

    def refuse(message: object) -> Exception | None:
        if getattr(message, "type", None) != LOGGED:
            return None
        next(refused)
        return AccessRefusedError("this broker knows of no logs")

    bus.refuse = refuse
    agent = around.agent(directory, runner, bus=bus)  # type: ignore[arg-type]
    await agent.start()
    for number in range(1, 4):
        runner.finish(Model())
        await around.backend.ask()
        await around.backend.event(ModelReady, number)
        assert agent._presence is not None
    assert around.backend.presence[-1].state == "ready"
    await agent.stop()
    # Once, then not for a minute; and when it stops.
    assert next(refused) <= 2


async def test_what_is_logged_while_the_broker_is_away_is_told_when_it_is_back(
    around: World, directory: object, runner: ScriptedRunner, reader: Reader
) -> None:
    around.clock = QuickClock(20)
    bus = UnreliableBus(MemoryBus(around.broker))
    agent = around.agent(directory, runner, bus=bus)  # type: ignore[arg-type]
    await agent.start()
    await around.backend.ask()
    await eventually(lambda: runner.log)
    assert runner.log is not None
    failures = itertools.count()

    def away(message: object) -> Exception | None:
        next(failures)
        return BusUnavailableError("away")

    bus.refuse = away
    for number in range(50):
        runner.log(LogLine(level="info", event=f"line {number}"))
    await eventually(lambda: next(failures) > 200)
    assert "line 0" not in reader.said
    bus.refuse = lambda message: None
    await reader.until("line 49")
    numbers = [line.number for line in reader.lines]
    assert numbers == list(range(1, len(numbers) + 1))
    runner.finish(Model())
    await around.backend.event(ModelReady)
    await agent.stop()


async def test_the_logs_of_many_attempts_fill_no_memory_while_they_cannot_be_published(around: World) -> None:
    bus = UnreliableBus(MemoryBus(around.broker))
    bus.is_down = True
    publisher = EventPublisher(bus, sender="a@b", ids=RandomIds(), clock=SystemClock(), timeout_s=1)
    feed = LogFeed(publisher, agent_id="a", clock=SystemClock())
    for number in range(1000):
        log = feed.begin(Claim(operation_id="op-1", attempt=1, claim_id=f"c{number}"))
        log.relay(LogLine(level="info", event="line"))
        feed.end(f"c{number}")
    await feed.flush()
    assert sum(len(each) for each in feed._logs.values()) == len(feed._logs) == 100
    assert feed.listener("c999") is not None
    assert feed.listener("c0") is None


async def test_what_is_being_published_when_the_agent_stops_is_not_lost(
    around: World, reader: Reader
) -> None:
    bus = _SlowOnce(MemoryBus(around.broker))
    publisher = EventPublisher(bus, sender="a@b", ids=RandomIds(), clock=SystemClock(), timeout_s=60)
    feed = LogFeed(publisher, agent_id="a", clock=SystemClock())
    feed.begin(Claim(operation_id="op-1", attempt=1, claim_id="c")).relay(LogLine(level="info", event="line"))
    running = asyncio.create_task(feed.run())
    await bus.begun.wait()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await feed.flush()
    await reader.until("line")


class _SlowOnce(UnreliableBus):
    """A bus on which the first publish never ends."""

    def __init__(self, bus: MemoryBus) -> None:
        super().__init__(bus)
        self.begun = asyncio.Event()

    async def publish(self, message: Message, **where: Any) -> None:
        if not self.begun.is_set():
            self.begun.set()
            await asyncio.Event().wait()
        await super().publish(message, **where)
