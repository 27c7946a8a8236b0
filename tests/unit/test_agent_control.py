"""Losing what the agent is told through, and finding another agent there."""

import dataclasses
from pathlib import Path

from structlog.testing import capture_logs

from host_agent.directory import AgentDirectory, open_directory
from ktrdr.bus.memory import MemoryBus
from ktrdr.bus.topology import control_queue, lane_queue
from ktrdr.events import ModelReady, TrainingAccepted, TrainingCancelled
from tests.unit.agent_cases import Model, QuickClock, ScriptedRunner, UnreliableBus, World, eventually
from tests.unit.agent_fixtures import around, directory, runner

__all__ = ["around", "directory", "runner"]  # fixtures


async def test_an_agent_whose_name_is_taken_says_so_and_waits_unseen(
    around: World, directory: AgentDirectory, runner: ScriptedRunner, tmp_path: Path
) -> None:
    # On two machines, which share no directory.
    with open_directory(tmp_path / "elsewhere", "agent") as other_directory:
        bus = MemoryBus(around.broker)
        first = around.agent(other_directory, ScriptedRunner(), bus=bus)
        await first.start()
        await eventually(lambda: around.backend.presence)
        second = around.agent(directory, runner)
        with capture_logs() as lines:
            await second.start()
            await eventually(lambda: any("of this name" in line["event"] for line in lines))
        [warning] = [line for line in lines if line["log_level"] == "warning"]
        assert warning["agent"] == "agent"
        assert "--name" in warning["fix"]
        assert around.broker.queue_stats(lane_queue("any")).consumers == 1
        await first.stop()
        assert around.backend.presence[-1].state == "stopped"
        await bus.close()
        await around.backend.ask()
        await around.backend.event(TrainingAccepted)
        await eventually(lambda: runner.active)
        await second.stop()


async def test_an_agent_that_was_never_there_does_not_say_that_it_stopped(
    around: World, directory: AgentDirectory, runner: ScriptedRunner, tmp_path: Path
) -> None:
    with open_directory(tmp_path / "elsewhere", "agent") as other_directory:
        first = around.agent(other_directory, ScriptedRunner())
        await first.start()
        await eventually(lambda: around.backend.presence)
        second = around.agent(directory, runner)
        await second.start()
        await second.stop()
        assert {presence.state for presence in around.backend.presence} == {"ready"}
        await first.stop()


async def test_a_lost_connection_costs_neither_the_training_nor_an_order(
    around: World, directory: AgentDirectory, runner: ScriptedRunner
) -> None:
    bus = UnreliableBus(MemoryBus(around.broker))
    options = dataclasses.replace(around.options, presence_interval_s=3600)
    agent = around.agent(directory, runner, bus=bus, options=options)
    await agent.start()
    request = await around.backend.ask()
    await eventually(lambda: runner.active)
    await eventually(around.backend.running)
    heard = len(around.backend.presence)
    await bus.lose_connection(around.broker)
    # It says at once what it holds, so that who is to stop, and was told meanwhile, is told again.
    await eventually(lambda: len(around.backend.presence) > heard)
    assert around.backend.running()[0].operation_id == request.operation_id
    assert runner.active
    await around.backend.cancel(request)
    await around.backend.event(TrainingCancelled)
    await agent.stop()


async def test_an_answer_that_was_lost_with_the_queue_is_asked_for_again_at_once(
    around: World, directory: AgentDirectory, runner: ScriptedRunner
) -> None:
    around.backend.answers = False
    bus = UnreliableBus(MemoryBus(around.broker))
    agent = around.agent(directory, runner, bus=bus)
    await agent.start()
    runner.finish(Model())
    await around.backend.ask()
    await around.backend.event(ModelReady)
    around.backend.answers = True
    await bus.lose_connection(around.broker)
    await around.backend.event(ModelReady, number=2)
    await eventually(lambda: not list(directory.claims.iterdir()))
    await agent.stop()


async def test_nothing_is_begun_while_no_order_would_arrive(
    around: World, directory: AgentDirectory, runner: ScriptedRunner
) -> None:
    bus = UnreliableBus(MemoryBus(around.broker))
    agent = around.agent(directory, runner, bus=bus)
    await agent.start()
    await eventually(agent._control.listening.is_set)
    bus.refuse_queue = control_queue("agent")
    await bus.lose_connection(around.broker)
    await eventually(lambda: bus.refused >= 2)
    await around.backend.ask()
    refused = bus.refused
    await eventually(lambda: bus.refused > refused)
    assert around.broker.queue_stats(lane_queue("any")).consumers == 0
    assert not runner.jobs
    bus.refuse_queue = None
    await eventually(lambda: runner.jobs)
    await agent.stop()


async def test_an_outage_of_an_hour_leaves_a_few_lines_in_the_log(
    around: World, directory: AgentDirectory, runner: ScriptedRunner
) -> None:
    bus = UnreliableBus(MemoryBus(around.broker))
    around.clock = QuickClock(factor=1000)
    agent = around.agent(
        directory, runner, bus=bus, options=dataclasses.replace(around.options, presence_interval_s=5.0)
    )
    await agent.start()
    runner.finish(Model())
    around.backend.answers = False
    await around.backend.ask()
    await around.backend.event(ModelReady)
    began = around.clock.monotonic()
    with capture_logs() as lines:
        bus.is_down = True
        await eventually(lambda: around.clock.monotonic() - began > 3600)
        bus.is_down = False
        await bus.lose_connection(around.broker)
        await eventually(lambda: any("can be reached again" in line["event"] for line in lines))
    said = [line["event"] for line in lines if line["log_level"] != "debug"]
    assert 1 <= len([event for event in said if "cannot be reached" in event]) <= 8
    assert len(said) <= 14, said
    await agent.stop()
