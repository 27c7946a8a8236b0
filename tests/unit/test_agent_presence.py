"""What the agent says of itself, also after a silence."""

import dataclasses
from pathlib import Path

from structlog.testing import capture_logs

from host_agent.agent import HostAgent
from host_agent.directory import AgentDirectory, open_directory
from ktrdr.bus.memory import MemoryBus
from ktrdr.clock import SystemClock
from ktrdr.errors import BusUnavailableError
from ktrdr.events import AgentPresence, ModelReady, TrainingAccepted
from tests.unit.agent_cases import Model, QuickClock, ScriptedRunner, UnreliableBus, World, eventually
from tests.unit.agent_fixtures import agent, around, directory, runner

__all__ = ["agent", "around", "directory", "runner"]  # fixtures


def latest(around: World) -> AgentPresence:
    return around.backend.presence[-1]


async def test_presence_says_what_the_agent_is(around: World, directory: AgentDirectory) -> None:
    options = dataclasses.replace(around.options, lanes=("gpu", "any"), slots=2)
    agent = around.agent(directory, ScriptedRunner(), ScriptedRunner(), options=options)
    await agent.start()
    await eventually(lambda: around.backend.presence and latest(around).device == "cpu")
    presence = latest(around)
    assert (presence.agent_id, presence.state, presence.lanes) == ("agent", "ready", ("gpu", "any"))
    assert (presence.slots_total, presence.slots_busy, presence.running) == (2, 0, ())
    assert (presence.device_name, presence.memory_bytes) == ("a device", 1)
    await agent.stop()
    await eventually(lambda: latest(around).state == "stopped")


async def test_presence_comes_at_intervals(around: World, agent: HostAgent) -> None:
    await eventually(lambda: len(around.backend.presence) >= 5)


async def test_a_change_is_told_at_once(
    around: World, directory: AgentDirectory, runner: ScriptedRunner
) -> None:
    agent = around.agent(
        directory, runner, options=dataclasses.replace(around.options, presence_interval_s=3600)
    )
    await agent.start()
    await around.backend.ask()
    await eventually(lambda: around.backend.presence and latest(around).slots_busy == 1)
    runner.finish(Model())
    await eventually(lambda: latest(around).slots_busy == 0)
    await agent.stop()


class NotingClock(SystemClock):
    """A clock that notes how long one meant to sleep."""

    def __init__(self) -> None:
        self.slept = set[float]()

    async def sleep(self, seconds: float) -> None:
        self.slept.add(round(seconds, 6))
        await super().sleep(seconds)


async def test_who_holds_nothing_says_so_a_third_as_often(
    around: World, directory: AgentDirectory, runner: ScriptedRunner
) -> None:
    around.clock = clock = NotingClock()
    options = dataclasses.replace(around.options, presence_interval_s=7200.0, lease_s=50_000.0)
    agent = around.agent(directory, runner, options=options)
    await agent.start()
    await eventually(lambda: 3 * 7200.0 - 0.25 in clock.slept)
    assert 7200.0 - 0.25 not in clock.slept
    await around.backend.ask()
    await eventually(lambda: around.backend.presence and latest(around).running)
    await eventually(lambda: 7200.0 - 0.25 in clock.slept)
    await agent.stop()


async def test_who_holds_nothing_speaks_twice_within_a_lease(
    around: World, directory: AgentDirectory, runner: ScriptedRunner
) -> None:
    around.clock = clock = NotingClock()
    options = dataclasses.replace(around.options, presence_interval_s=5000.0, lease_s=20_000.0)
    agent = around.agent(directory, runner, options=options)
    await agent.start()
    await eventually(lambda: 10_000.0 - 0.25 in clock.slept)
    await agent.stop()


class StillClock(SystemClock):
    """A clock that a test moves; sleeping takes its time."""

    seconds = 0.0

    def monotonic(self) -> float:
        return self.seconds


async def test_presence_is_not_the_first_to_speak_of_an_attempt(
    around: World, directory: AgentDirectory
) -> None:
    around.clock = clock = StillClock()
    options = dataclasses.replace(around.options, presence_interval_s=3600, slots=2)
    agent = around.agent(directory, ScriptedRunner(), ScriptedRunner(), options=options)
    await agent.start()
    await around.backend.ask()
    first = await around.backend.event(TrainingAccepted)
    await eventually(lambda: around.backend.presence and latest(around).slots_busy == 1)
    assert latest(around).running == ()
    clock.seconds += 2
    await around.backend.ask()
    await eventually(lambda: latest(around).slots_busy == 2)
    [running] = latest(around).running
    assert (running.operation_id, running.attempt, running.claim_id) == (
        first.operation_id,
        1,
        first.claim_id,
    )
    assert not running.detached
    await agent.stop()


async def test_an_attempt_that_was_kept_back_is_told_without_another_change(
    around: World, directory: AgentDirectory, runner: ScriptedRunner
) -> None:
    around.clock = QuickClock(20)
    agent = around.agent(
        directory, runner, options=dataclasses.replace(around.options, presence_interval_s=10**6)
    )
    await agent.start()
    await around.backend.ask()
    await eventually(lambda: around.backend.presence and latest(around).running)
    await agent.stop()


async def test_an_attempt_whose_acceptance_may_not_have_been_heard_is_told_at_once(
    around: World, directory: AgentDirectory, runner: ScriptedRunner
) -> None:
    around.clock = StillClock()
    bus = UnreliableBus(MemoryBus(around.broker))
    bus.refuse = lambda message: (
        BusUnavailableError("cut") if message.type == TrainingAccepted.type_name() else None
    )
    agent = around.agent(directory, runner, bus=bus)
    await agent.start()
    await around.backend.ask()
    await eventually(lambda: around.backend.presence and latest(around).running)
    await agent.stop()


async def test_a_result_that_is_not_answered_is_still_held(
    around: World, agent: HostAgent, runner: ScriptedRunner
) -> None:
    around.backend.answers = False
    runner.finish(Model())
    await around.backend.ask()
    ready = await around.backend.event(ModelReady)
    await eventually(lambda: latest(around).running and latest(around).slots_busy == 0)
    assert latest(around).running[0].claim_id == ready.claim_id
    await around.backend.persisted(ready)
    await eventually(lambda: not latest(around).running)


async def test_an_agent_that_was_silent_for_most_of_its_lease_calls_its_attempts_detached_once(
    around: World, directory: AgentDirectory, runner: ScriptedRunner
) -> None:
    bus = UnreliableBus(MemoryBus(around.broker))
    options = dataclasses.replace(around.options, lease_s=0.3)
    agent = around.agent(directory, runner, bus=bus, options=options)
    await agent.start()
    await around.backend.ask()
    await eventually(lambda: around.backend.presence and latest(around).running)
    with capture_logs() as lines:
        bus.is_down = True
        [attempt] = agent._attempts.running
        await eventually(lambda: attempt.is_detached)
        heard = len(around.backend.presence)
        bus.is_down = False
        await eventually(lambda: len(around.backend.presence) >= heard + 3)
    said = [presence.running[0].detached for presence in around.backend.presence[heard:]]
    assert said[0] is True
    assert not any(said[1:])
    assert runner.active
    events = [line["event"] for line in lines if line["log_level"] != "debug"]
    assert events.count("the broker cannot be reached; training goes on") == 1
    assert events.count("the broker can be reached again") == 1
    await agent.stop()


async def test_a_short_silence_detaches_nothing(
    around: World, directory: AgentDirectory, runner: ScriptedRunner
) -> None:
    bus = UnreliableBus(MemoryBus(around.broker))
    agent = around.agent(directory, runner, bus=bus)
    await agent.start()
    await around.backend.ask()
    await eventually(lambda: around.backend.presence and latest(around).running)
    with capture_logs() as lines:
        bus.is_down = True
        await eventually(lambda: lines)
        bus.is_down = False
        await eventually(lambda: len(lines) >= 2)
    heard = len(around.backend.presence)
    await eventually(lambda: len(around.backend.presence) >= heard + 2)
    assert not any(attempt.detached for presence in around.backend.presence for attempt in presence.running)
    await agent.stop()


async def test_each_agent_speaks_in_its_own_name(around: World, tmp_path: Path) -> None:
    with open_directory(tmp_path / "a", "one") as first, open_directory(tmp_path / "a", "two") as second:
        agents = [around.agent(first, ScriptedRunner()), around.agent(second, ScriptedRunner())]
        for each in agents:
            await each.start()
        await eventually(lambda: {p.agent_id for p in around.backend.presence} == {"one", "two"})
        for each in agents:
            await each.stop()
