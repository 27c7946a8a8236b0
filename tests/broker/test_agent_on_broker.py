"""A host agent on a real broker: what people read there, and what it survives."""

import asyncio
import dataclasses
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import psutil
import pytest
from structlog.testing import capture_logs

from host_agent.directory import AgentDirectory, open_directory
from ktrdr.backend.preparation import prepare_training
from ktrdr.bus.topology import control_queue, lane_queue
from ktrdr.events import (
    FailureCause,
    ModelReady,
    TrainingAccepted,
    TrainingCancelled,
    TrainingFailed,
    TrainingProgress,
    TrainingRequested,
)
from tests.broker.agent_cases import Installation, installation
from tests.broker.node import PrivateNode
from tests.broker.proxy import Proxy
from tests.unit.agent_cases import Model, ScriptedRunner, eventually

pytestmark = pytest.mark.broker

REPOSITORY = Path(__file__).parents[2]
PATIENCE_S = 60.0


@pytest.fixture
async def around(private_node: PrivateNode, tmp_path: Path) -> AsyncIterator[Installation]:
    async with installation(private_node, tmp_path) as around:
        yield around


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[AgentDirectory]:
    with open_directory(tmp_path / "agents", "gpu-box") as directory:
        yield directory


async def test_an_agent_reads_in_plain_words_on_the_brokers_pages(
    around: Installation, directory: AgentDirectory
) -> None:
    runner = ScriptedRunner()
    async with around.agent(directory, runner):
        await eventually(lambda: around.consumers(lane_queue("any")) == ["host-agent@gpu-box/slot-1"])
        assert around.consumers(control_queue("gpu-box")) == ["host-agent@gpu-box/control"]

        def names() -> set[str]:
            connections = around.node.management.connections()
            return {each["client_properties"].get("connection_name", "") for each in connections}

        await eventually(lambda: names() >= {"host-agent@gpu-box publisher", "host-agent@gpu-box consumer"})
        runner.finish(Model())
        await around.backend.ask()
        await around.backend.event(ModelReady)
        await eventually(lambda: not list(directory.claims.iterdir()))
    assert around.backend.presence[-1].state == "stopped"
    assert await around.left_in(lane_queue("any")) is None


async def test_a_busy_slot_holds_no_request(around: Installation, directory: AgentDirectory) -> None:
    runner = ScriptedRunner()
    async with around.agent(directory, runner):
        await around.backend.ask()
        await eventually(lambda: runner.active)
        await around.backend.ask()
        with open_directory(directory.path.parent, "other") as elsewhere:
            other = ScriptedRunner()
            async with around.agent(elsewhere, other):
                await eventually(lambda: other.active)
                assert runner.active


async def test_a_broker_that_is_killed_costs_no_training_and_the_agent_is_detached_meanwhile(
    around: Installation, directory: AgentDirectory
) -> None:
    runner = ScriptedRunner()
    options = dataclasses.replace(around.options, lease_s=3.0)
    async with around.agent(directory, runner, options=options) as agent:
        await around.backend.ask()
        await eventually(around.backend.running)
        with capture_logs() as lines:
            around.node.kill()
            [attempt] = agent._attempts.running
            await eventually(lambda: attempt.is_detached)
            assert runner.active
            heard = len(around.backend.presence)
            await asyncio.to_thread(around.node.start)
            await eventually(lambda: len(around.backend.presence) > heard + 1, patience_s=PATIENCE_S)
        # That it was detached it says first of all, but perhaps before anybody listens again.
        assert not around.backend.presence[-1].running[0].detached
        warnings = [line for line in lines if line["log_level"] == "warning"]
        of_agent = [line["event"] for line in warnings if "backend" not in f"{line.values()}"]
        assert of_agent.count("the broker cannot be reached; training goes on") == 1
        assert len(of_agent) <= 8, of_agent
        runner.finish(Model())
        await around.backend.event(ModelReady)
        await eventually(lambda: not list(directory.claims.iterdir()))
    assert len(around.backend.events(TrainingAccepted)) == 1


async def test_a_result_that_is_made_while_the_broker_is_away_arrives_when_it_is_back(
    around: Installation, directory: AgentDirectory
) -> None:
    runner = ScriptedRunner()
    async with around.agent(directory, runner):
        await around.backend.ask()
        await eventually(lambda: runner.active)
        around.node.kill()
        runner.finish(Model(b"made alone"))
        await eventually(lambda: list(directory.claims.glob("*/ending.json")))
        await asyncio.to_thread(around.node.start)
        await eventually(lambda: around.backend.events(ModelReady), patience_s=PATIENCE_S)
        await eventually(lambda: not list(directory.claims.iterdir()))


async def test_an_agent_that_accepts_while_the_broker_takes_no_messages_works_and_says_so_later(
    around: Installation, directory: AgentDirectory
) -> None:
    request = await around.backend.ask()
    around.node.set_memory_alarm(True)
    runner = ScriptedRunner()
    async with around.agent(directory, runner):
        await eventually(lambda: runner.active)
        assert not around.backend.events(TrainingAccepted)
        runner.finish(Model())
        await eventually(lambda: list(directory.claims.glob("*/ending.json")))
        around.node.set_memory_alarm(False)
        ready = await around.backend.event(ModelReady)
        assert ready.operation_id == request.operation_id
        await eventually(lambda: not list(directory.claims.iterdir()))
    assert await around.left_in(lane_queue("any")) is None
    assert len(runner.jobs) == 1


async def test_an_agent_finds_that_its_name_is_taken_and_takes_over_when_it_is_free(
    around: Installation, directory: AgentDirectory, tmp_path: Path
) -> None:
    with open_directory(tmp_path / "another-machine", "gpu-box") as elsewhere:
        async with around.agent(elsewhere, ScriptedRunner()):
            await eventually(lambda: around.backend.presence)
            first = await eventually_one_consumer(around)
            runner = ScriptedRunner()
            with capture_logs() as lines:
                namesake = around.agent(directory, runner)
                await namesake.__aenter__()
                await eventually(lambda: any("of this name" in line["event"] for line in lines))
            assert around.consumers(lane_queue("any")) == first
    await around.backend.ask()
    await eventually(lambda: runner.active)
    await namesake.__aexit__(None, None, None)


async def eventually_one_consumer(around: Installation) -> list[str]:
    await eventually(lambda: len(around.consumers(lane_queue("any"))) == 1)
    return around.consumers(lane_queue("any"))


async def test_a_network_that_is_cut_without_a_word_costs_nothing(
    around: Installation, directory: AgentDirectory
) -> None:
    runner = ScriptedRunner()
    options = dataclasses.replace(around.options, publish_timeout_s=0.5, lease_s=3.0)
    with Proxy(around.node.amqp_url()) as proxy:
        bus = around.connect("gpu-box", proxy.url, heartbeat_s=1)
        async with around.agent(directory, runner, bus=bus, options=options) as agent:
            request = await around.backend.ask()
            await eventually(around.backend.running)
            proxy.freeze()
            [attempt] = agent._attempts.running
            await eventually(lambda: attempt.is_detached)
            await around.backend.cancel(request)  # which does not arrive
            await eventually(lambda: not agent._control.listening.is_set())
            assert runner.active
            proxy.restore()
            await eventually(agent._control.listening.is_set, patience_s=PATIENCE_S)
            heard = len(around.backend.presence)
            await eventually(lambda: len(around.backend.presence) > heard)
            # What a backend does at each sign of life of a run that is to stop.
            await around.backend.cancel(request)
            await around.backend.event(TrainingCancelled)


# --- real processes


async def ask_for_sample(around: Installation, *, epochs: int) -> TrainingRequested:
    sample = await asyncio.to_thread(
        prepare_training,
        REPOSITORY / "strategies" / "eurusd_momentum.yaml",
        strategies_dir=REPOSITORY / "strategies",
        data_dir=REPOSITORY / "data",
        blobs=around.blobs,
        overrides={"training.epochs": epochs, "training.early_stopping": False},
    )
    return await around.backend.ask(strategy=sample.strategy, datasets=sample.datasets)


@pytest.mark.slow
@pytest.mark.fault
async def test_an_agent_that_is_killed_leaves_no_runner_and_its_successor_says_at_once_what_it_held(
    around: Installation, tmp_path: Path
) -> None:
    with around.process("box", tmp_path / "home") as killed:
        await ask_for_sample(around, epochs=100_000)
        await eventually(lambda: around.backend.events(TrainingProgress), patience_s=PATIENCE_S)
        [runner] = psutil.Process(killed.process.pid).children()
        killed.process.kill()
        killed.process.wait()
        await eventually(lambda: not runner.is_running())
    accepted = around.backend.events(TrainingAccepted)[0]
    with around.process("box", tmp_path / "home") as agent:
        failed = await around.backend.event(TrainingFailed)
        assert (failed.cause, failed.claim_id) == (FailureCause.AGENT_RESTARTED, accepted.claim_id)
        await ask_for_sample(around, epochs=1)
        await eventually(lambda: around.backend.events(ModelReady), patience_s=PATIENCE_S)
        agent.process.terminate()
        assert await asyncio.to_thread(agent.process.wait, PATIENCE_S) == 0
    assert await around.left_in(lane_queue("any")) is None


@pytest.mark.slow
async def test_an_agent_that_is_started_before_its_broker_says_so_once_and_begins_when_it_is_there(
    around: Installation, tmp_path: Path
) -> None:
    around.node.kill()
    with around.process("box", tmp_path / "home") as agent:
        await eventually(lambda: agent.says("broker not reached"))
        await asyncio.to_thread(around.node.start)
        await eventually(lambda: agent.says("listening"), patience_s=PATIENCE_S)
        said = [line["event"] for line in agent.lines()]
        assert said.count("broker not reached") <= 4, said  # two connections, before and while it starts
        agent.process.terminate()
        assert await asyncio.to_thread(agent.process.wait, PATIENCE_S) == 0


@pytest.mark.slow
async def test_a_drained_agent_hands_its_training_over_and_shows_no_password(
    around: Installation, tmp_path: Path
) -> None:
    with around.process("box", tmp_path / "home", KTRDR_DRAIN_S="0.5", KTRDR_LOG_LEVEL="debug") as agent:
        await ask_for_sample(around, epochs=100_000)
        await eventually(lambda: around.backend.events(TrainingProgress), patience_s=PATIENCE_S)
        process = psutil.Process(agent.process.pid)
        [runner] = process.children()
        url = around.node.amqp_url()
        for each in (process, runner):
            assert url not in " ".join(each.cmdline())
        assert not any(name.startswith("KTRDR_") for name in runner.environ())
        agent.process.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(agent.process.wait, PATIENCE_S) == 0
        failed = await around.backend.event(TrainingFailed)
        assert failed.cause is FailureCause.AGENT_SHUTDOWN
        assert around.backend.presence[-1].state == "stopped"
        assert "guest:guest" not in agent.log.read_text()
        assert not runner.is_running()
