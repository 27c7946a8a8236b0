"""Endings are told until they are known: again and again, and after a restart."""

import asyncio
import dataclasses
import errno
import itertools
import random
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from host_agent.agent import HostAgent
from host_agent.directory import AgentDirectory, claim_directory, open_directory
from host_agent.endings import Cancelled, Failed, Trained
from host_agent.journal import Announcement, Claim, ClaimFolder, Journal
from host_agent.made import leave_model as leave_model_of_runner
from ktrdr.bus.memory import MemoryBus
from ktrdr.bus.topology import BACKEND_EVENTS
from ktrdr.clock import SystemClock
from ktrdr.errors import (
    BlobUnavailableError,
    PublishNackedError,
    PublishTimeoutError,
    StorageFullError,
    UnroutableError,
)
from ktrdr.events import (
    BlobRef,
    FailureCause,
    Message,
    ModelReady,
    TrainingAccepted,
    TrainingCancelled,
    TrainingFailed,
)
from ktrdr.events.compression import decompress
from ktrdr.training.job import TrainedModel
from tests.unit.agent_cases import (
    Model,
    QuickClock,
    ScriptedRunner,
    UnreliableBus,
    World,
    eventually,
    manifest,
)
from tests.unit.agent_fixtures import agent, around, directory, runner

__all__ = ["agent", "around", "directory", "runner"]  # fixtures


def claim(name: str = "claim-1") -> Claim:
    return Claim(operation_id="op-left", attempt=2, claim_id=name)


def leave_model(around: World, directory: AgentDirectory, name: str = "claim-1") -> ClaimFolder:
    folder = Journal(directory).open(claim(name))
    folder.bundle.write_bytes(b"weights")
    folder.record(Announcement(event_id=f"event-{name}", ending=Trained(manifest=manifest(b"weights"))))
    return folder


def event_ids(around: World, kind: type) -> list[str]:
    return [event_id for event_id, event in around.backend.heard if isinstance(event, kind)]


async def test_an_unanswered_model_is_sent_again_under_the_same_id_ever_more_rarely(
    around: World, directory: AgentDirectory, runner: ScriptedRunner
) -> None:
    around.clock = QuickClock(factor=200)
    around.backend.answers = False
    moments: list[float] = []
    bus = UnreliableBus(MemoryBus(around.broker))

    def note(message: Message) -> None:
        if message.type == ModelReady.type_name():
            moments.append(around.clock.monotonic())

    bus.refuse = note
    agent = around.agent(directory, runner, bus=bus)
    await agent.start()
    runner.finish(Model())
    await around.backend.ask()
    ready = await around.backend.event(ModelReady, number=4)
    pauses = [later - earlier for earlier, later in pairwise(moments)][:3]
    for pause, expected in zip(pauses, [10, 20, 40], strict=True):
        assert 0.75 * expected <= pause
    assert len(set(event_ids(around, ModelReady))) == 1
    await around.backend.persisted(ready)
    await eventually(lambda: not list(directory.claims.iterdir()))
    await agent.stop()


async def test_a_model_whose_confirm_is_lost_is_sent_again(
    around: World, directory: AgentDirectory, runner: ScriptedRunner
) -> None:
    around.backend.answers = False
    bus = UnreliableBus(MemoryBus(around.broker))
    lost = [PublishTimeoutError(), PublishTimeoutError()]
    bus.after = lambda message: lost.pop() if lost and message.type == ModelReady.type_name() else None
    agent = around.agent(directory, runner, bus=bus)
    await agent.start()
    runner.finish(Model())
    await around.backend.ask()
    ready = await around.backend.event(ModelReady, number=3)
    assert len(set(event_ids(around, ModelReady))) == 1
    await around.backend.persisted(ready)
    await agent.stop()


async def test_a_failure_that_no_queue_takes_is_told_when_one_does(
    around: World, directory: AgentDirectory, runner: ScriptedRunner
) -> None:
    bus = UnreliableBus(MemoryBus(around.broker))
    refused = [UnroutableError(), UnroutableError()]
    bus.refuse = lambda message: (
        refused.pop() if refused and message.type == TrainingFailed.type_name() else None
    )
    agent = around.agent(directory, runner, bus=bus)
    await agent.start()
    runner.finish(ZeroDivisionError())
    await around.backend.ask()
    await around.backend.event(TrainingFailed)
    assert not refused
    assert len(around.backend.events(TrainingFailed)) == 1
    await agent.stop()


async def test_an_answer_for_another_claim_settles_nothing(
    around: World, agent: HostAgent, runner: ScriptedRunner, directory: AgentDirectory
) -> None:
    around.backend.answers = False
    runner.finish(Model())
    await around.backend.ask()
    ready = await around.backend.event(ModelReady)
    await around.backend.persisted(ready.model_copy(update={"claim_id": "another"}))
    runner.finish(Model(b"second"))
    await around.backend.ask()
    second = await around.backend.event(ModelReady, number=2)
    await around.backend.persisted(second)
    await eventually(
        lambda: [folder.claim.claim_id for folder in Journal(directory).load()] == [ready.claim_id]
    )
    await around.backend.persisted(ready)


# --- what is in the way


class FaultyBlobs:
    """A blob store that does not take models until the test lets it."""

    def __init__(self, around: World) -> None:
        self._inner = around.blobs
        self.error: Exception | None = None
        self.puts = 0

    def fetch(self, ref: BlobRef, destination: Path) -> Path:
        return self._inner.fetch(ref, destination)

    def put_file(self, path: Path) -> BlobRef:
        self.puts += 1
        if self.error is not None:
            raise self.error
        return self._inner.put_file(path)

    def exists(self, sha256: str) -> bool:
        return self._inner.exists(sha256)


@pytest.mark.parametrize(
    "error",
    [
        BlobUnavailableError(),
        StorageFullError(),
        ConnectionRefusedError(),
        TimeoutError(),
        OSError(errno.EIO, "Input/output error"),
        ZeroDivisionError("a defect of the store"),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_a_model_that_the_blob_store_does_not_take_is_kept_until_it_does(
    around: World, directory: AgentDirectory, runner: ScriptedRunner, error: Exception
) -> None:
    faulty = FaultyBlobs(around)
    faulty.error = error
    around.blobs = faulty  # type: ignore[assignment]  # the methods that agents use
    options = dataclasses.replace(around.options, inline_limit_bytes=0)
    agent = around.agent(directory, runner, options=options)
    await agent.start()
    runner.finish(Model(b"kept"))
    await around.backend.ask()
    with capture_logs() as lines:
        await eventually(lambda: faulty.puts >= 3)
    warnings = [line for line in lines if line["log_level"] == "warning"]
    assert [line["event"] for line in warnings] == ["result not delivered"]
    assert not around.backend.events(TrainingFailed)
    faulty.error = None
    ready = await around.backend.event(ModelReady)
    assert ready.blob is not None
    assert not around.backend.events(TrainingFailed)
    await eventually(lambda: not list(directory.claims.iterdir()))
    await agent.stop()


async def test_a_model_that_is_too_large_for_the_broker_goes_by_reference(
    around: World, directory: AgentDirectory, runner: ScriptedRunner
) -> None:
    bus = UnreliableBus(MemoryBus(around.broker))
    bus.refuse = lambda message: (
        PublishNackedError() if message.type == ModelReady.type_name() and len(message.body) > 5000 else None
    )
    agent = around.agent(directory, runner, bus=bus)
    await agent.start()
    runner.finish(Model(random.Random(1).randbytes(10_000)))
    await around.backend.ask()
    assert (await around.backend.event(ModelReady)).blob is not None
    await agent.stop()


async def test_a_wall_clock_that_jumps_changes_nothing(
    around: World, directory: AgentDirectory, runner: ScriptedRunner
) -> None:
    around.clock = JumpingClock()
    around.backend.answers = False
    agent = around.agent(directory, runner)
    await agent.start()
    for _ in range(10):
        await around.backend.ask()
    for number in range(10):
        runner.finish(Model(f"model {number}".encode()))
    await around.backend.event(ModelReady, number=10)
    heard = len(around.backend.presence)
    await eventually(lambda: len(around.backend.presence) >= heard + 3)
    assert not any(attempt.detached for presence in around.backend.presence for attempt in presence.running)
    assert len(around.backend.events(ModelReady)) == 10
    for ready in around.backend.events(ModelReady):
        await around.backend.persisted(ready)
    await eventually(lambda: not list(directory.claims.iterdir()))
    await agent.stop()


class JumpingClock(SystemClock):
    """A wall clock that is an hour or a day off, another way each time."""

    def __init__(self) -> None:
        self._offsets = itertools.cycle((3600, -86400, 0, 86400 * 365, -3600))

    def now(self) -> datetime:
        return super().now() + timedelta(seconds=next(self._offsets))


# --- restarts


async def break_off(agent: HostAgent, bus: MemoryBus) -> None:
    """End an agent without anything of what it does when it is stopped."""
    main = agent._main
    assert main is not None
    main.cancel()
    await eventually(main.done)
    await bus.close()


async def test_a_restarted_agent_says_at_once_what_it_held(
    around: World, directory: AgentDirectory, runner: ScriptedRunner
) -> None:
    Journal(directory).open(claim())
    agent = around.agent(directory, runner)
    await agent.start()
    failed = await around.backend.event(TrainingFailed)
    assert failed.cause is FailureCause.AGENT_RESTARTED
    assert (failed.operation_id, failed.attempt, failed.claim_id) == ("op-left", 2, "claim-1")
    await eventually(lambda: not list(directory.claims.iterdir()))
    await agent.stop()


async def test_a_restarted_agent_sends_its_models_again(
    around: World, directory: AgentDirectory, runner: ScriptedRunner
) -> None:
    leave_model(around, directory, "claim-1")
    leave_model(around, directory, "claim-2")
    agent = around.agent(directory, runner)
    await agent.start()
    await around.backend.event(ModelReady, number=2)
    assert sorted(event_ids(around, ModelReady)) == ["event-claim-1", "event-claim-2"]
    for ready in around.backend.events(ModelReady):
        assert ready.agent_id == "agent"
        assert ready.inline is not None
        assert decompress(ready.inline.data, limit=100) == b"weights"
    await eventually(lambda: not list(directory.claims.iterdir()))
    await agent.stop()


@pytest.mark.parametrize("damage", [None, "bundle", "manifest", "half"])
async def test_a_model_that_the_runner_had_made_when_the_agent_was_killed_is_delivered_if_it_is_whole(
    around: World, directory: AgentDirectory, runner: ScriptedRunner, damage: str | None
) -> None:
    folder = Journal(directory).open(claim())
    leave_model_of_runner(TrainedModel(manifest=manifest(b"weights"), bundle=b"weights"), folder.bundle)
    match damage:
        case "bundle":
            folder.bundle.write_bytes(b"weighty")
        case "manifest":
            (folder.path / "model.json").write_bytes(b"{")
        case "half":
            folder.bundle.unlink()
    agent = around.agent(directory, runner)
    await agent.start()
    if damage is None:
        ready = await around.backend.event(ModelReady)
        assert ready.inline is not None
        assert decompress(ready.inline.data, limit=100) == b"weights"
    else:
        assert (await around.backend.event(TrainingFailed)).cause is FailureCause.AGENT_RESTARTED
    await eventually(lambda: not list(directory.claims.iterdir()))
    await agent.stop()


@pytest.mark.parametrize(
    ("ending", "kind"),
    [
        (Cancelled(epoch=3), TrainingCancelled),
        (Failed(cause=FailureCause.DATA_ERROR, message="m"), TrainingFailed),
    ],
)
async def test_a_restarted_agent_tells_the_endings_that_nobody_heard(
    around: World,
    directory: AgentDirectory,
    runner: ScriptedRunner,
    ending: Cancelled | Failed,
    kind: type[TrainingCancelled | TrainingFailed],
) -> None:
    folder = Journal(directory).open(claim())
    folder.record(Announcement(event_id="event-1", ending=ending))
    agent = around.agent(directory, runner)
    await agent.start()
    await around.backend.event(kind)
    assert event_ids(around, kind) == ["event-1"]
    await eventually(lambda: not list(directory.claims.iterdir()))
    await agent.stop()


async def test_an_agent_inherits_what_its_dead_sibling_could_not_deliver(
    around: World, runner: ScriptedRunner
) -> None:
    with claim_directory(around.agents_dir), claim_directory(around.agents_dir) as second:
        leave_model(around, second)
    with claim_directory(around.agents_dir) as directory:
        agent = around.agent(directory, runner)
        await agent.start()
        ready = await around.backend.event(ModelReady)
        assert (ready.claim_id, ready.agent_id) == ("claim-1", "embedded-1")
        await eventually(lambda: not list(directory.claims.iterdir()))
        await agent.stop()


async def test_a_model_that_the_agent_was_killed_before_delivering_is_delivered(
    around: World, tmp_path: Path
) -> None:
    around.backend.answers = False
    with open_directory(tmp_path / "agents", "agent") as directory:
        runner, bus = ScriptedRunner(), MemoryBus(around.broker)
        first = around.agent(directory, runner, bus=bus)
        await first.start()
        runner.finish(Model(b"made once"))
        await around.backend.ask()
        made = await around.backend.event(ModelReady)
        await break_off(first, bus)
    around.backend.answers = True
    with open_directory(tmp_path / "agents", "agent") as directory:
        second = around.agent(directory, ScriptedRunner())
        await second.start()
        assert await around.backend.event(ModelReady, number=2) == made
        assert len(set(event_ids(around, ModelReady))) == 1
        await eventually(lambda: not list(directory.claims.iterdir()))
        await second.stop()


async def test_an_attempt_that_the_agent_was_killed_in_is_reported_after_the_restart(
    around: World, tmp_path: Path
) -> None:
    with open_directory(tmp_path / "agents", "agent") as directory:
        runner, bus = ScriptedRunner(), MemoryBus(around.broker)
        first = around.agent(directory, runner, bus=bus)
        await first.start()
        await around.backend.ask()
        await eventually(lambda: runner.active)
        await break_off(first, bus)
        assert runner.closed
    with open_directory(tmp_path / "agents", "agent") as directory:
        second = around.agent(directory, ScriptedRunner())
        await second.start()
        failed = await around.backend.event(TrainingFailed)
        assert failed.claim_id == around.backend.events(TrainingAccepted)[0].claim_id
        assert failed.cause is FailureCause.AGENT_RESTARTED
        await second.stop()


async def test_an_unreadable_record_does_not_keep_the_agent_from_starting(
    around: World, directory: AgentDirectory, runner: ScriptedRunner
) -> None:
    leave_model(around, directory, "claim-1").path.rename(directory.claims / "claim-1")
    (leave_model(around, directory, "claim-2").path / "ending.json").write_bytes(b"\0")
    agent = around.agent(directory, runner)
    with capture_logs() as lines:
        await agent.start()
    assert len([line for line in lines if line["event"] == "unreadable record set aside"]) == 2
    failed = await around.backend.event(TrainingFailed)
    assert (failed.claim_id, failed.cause) == ("claim-2", FailureCause.AGENT_RESTARTED)
    runner.finish(Model())
    await around.backend.ask()
    await around.backend.event(ModelReady)
    await agent.stop()


async def test_a_model_that_vanishes_from_the_spool_becomes_a_failure(
    around: World, directory: AgentDirectory, runner: ScriptedRunner
) -> None:
    bus = UnreliableBus(MemoryBus(around.broker))
    bus.refuse = lambda message: PublishTimeoutError() if message.type == ModelReady.type_name() else None
    agent = around.agent(directory, runner, bus=bus)
    await agent.start()
    runner.finish(Model())
    await around.backend.ask()
    await eventually(lambda: list(directory.claims.glob("*/ending.json")))
    [bundle] = directory.claims.glob("*/model.bundle")
    bundle.unlink()
    failed = await around.backend.event(TrainingFailed)
    assert failed.cause is FailureCause.RESULT_REJECTED
    assert "bundle is gone" in failed.message
    await agent.stop()


# --- stopping


async def test_an_agent_that_stops_delivers_first(
    around: World, directory: AgentDirectory, runner: ScriptedRunner
) -> None:
    agent = around.agent(directory, runner)
    await agent.start()
    await around.backend.ask()
    await eventually(lambda: runner.active)
    runner.finish(Model())
    await agent.stop(grace_s=10)
    assert list(directory.claims.iterdir()) == []
    assert around.backend.events(ModelReady)


async def test_a_run_that_is_done_within_the_grace_time_is_a_result(
    around: World, directory: AgentDirectory, runner: ScriptedRunner
) -> None:
    agent = around.agent(directory, runner)
    await agent.start()
    await around.backend.ask()
    await eventually(lambda: runner.active)
    stopping = asyncio.create_task(agent.stop(grace_s=30))
    await eventually(lambda: around.backend.presence[-1].state == "draining")
    await around.backend.ask()
    runner.finish(Model())
    await stopping
    assert len(around.backend.events(ModelReady)) == 1
    assert len(runner.jobs) == 1
    assert around.backend.presence[-1].state == "stopped"


async def test_a_run_that_is_not_done_in_time_fails_as_shutdown(
    around: World, directory: AgentDirectory, runner: ScriptedRunner
) -> None:
    agent = around.agent(directory, runner)
    await agent.start()
    await around.backend.ask()
    await eventually(lambda: runner.active)
    await agent.stop()
    [failed] = around.backend.events(TrainingFailed)
    assert (failed.cause, failed.epoch) == (FailureCause.AGENT_SHUTDOWN, 1)
    assert failed.cause.retryable
    assert list(directory.claims.iterdir()) == []


async def test_an_agent_that_cannot_deliver_stops_all_the_same_and_keeps_it(
    around: World, directory: AgentDirectory, runner: ScriptedRunner
) -> None:
    bus = UnreliableBus(MemoryBus(around.broker))
    options = dataclasses.replace(around.options, publish_timeout_s=0.1)
    agent = around.agent(directory, runner, bus=bus, options=options)
    await agent.start()
    await around.backend.ask()
    await eventually(lambda: runner.active)
    bus.is_down = True
    with capture_logs() as lines:
        await agent.stop()
    assert any("kept on the disk" in line["event"] for line in lines)
    [folder] = Journal(directory).load()
    assert folder.announcement is not None
    assert isinstance(folder.announcement.ending, Failed)
    assert folder.announcement.ending.cause is FailureCause.AGENT_SHUTDOWN


async def test_stopping_twice_or_before_the_start_is_no_error(
    around: World, directory: AgentDirectory, runner: ScriptedRunner
) -> None:
    agent = around.agent(directory, runner)
    await agent.stop()
    assert runner.closed
    other = around.agent(directory, ScriptedRunner())
    await other.start()
    await other.stop()
    await other.stop()
    await other.wait()


async def test_who_does_not_wait_for_the_grace_time_can_stop_at_once(
    around: World, directory: AgentDirectory, runner: ScriptedRunner
) -> None:
    agent = around.agent(directory, runner)
    await agent.start()
    await around.backend.ask()
    await eventually(lambda: runner.active)
    stopping = asyncio.create_task(agent.stop(grace_s=60))
    await eventually(lambda: around.backend.presence[-1].state == "draining")
    stopping.cancel()
    with pytest.raises(asyncio.CancelledError):
        await stopping
    await agent.stop()
    assert runner.closed
    assert [failed.cause for failed in around.backend.events(TrainingFailed)] == [FailureCause.AGENT_SHUTDOWN]


async def test_a_broken_part_ends_the_agent_and_says_so(
    around: World, directory: AgentDirectory, runner: ScriptedRunner
) -> None:
    bus = UnreliableBus(MemoryBus(around.broker))
    agent = around.agent(directory, runner, bus=bus)
    bus.refuse = lambda message: OSError(errno.EIO, "no error that a bus may raise")
    await agent.start()
    with pytest.raises(ExceptionGroup):
        await agent.wait()
    assert runner.closed


async def test_a_restart_with_the_backend_away_keeps_everything(
    around: World, directory: AgentDirectory, runner: ScriptedRunner
) -> None:
    leave_model(around, directory)
    bus = UnreliableBus(MemoryBus(around.broker))
    bus.is_down = True
    agent = around.agent(
        directory, runner, bus=bus, options=dataclasses.replace(around.options, publish_timeout_s=0.05)
    )
    await agent.start()
    await agent.stop()
    [folder] = Journal(directory).load()
    assert folder.announcement is not None
    assert folder.announcement.event_id == "event-claim-1"
    assert around.broker.queue_depth(BACKEND_EVENTS) == 0
