"""What an agent does with a request, from the lane to the end."""

import dataclasses
import random
from pathlib import Path

import pytest
import structlog
from structlog.testing import capture_logs

from host_agent.agent import HostAgent
from host_agent.directory import AgentDirectory, open_directory
from host_agent.endings import Failed, Trained
from host_agent.frames import LogLine
from host_agent.journal import Announcement, Claim, Journal
from host_agent.options import AgentOptions
from ktrdr.blobs.directory import DirectoryBlobStore
from ktrdr.bus.memory import MemoryBus
from ktrdr.bus.topology import DEAD_LETTERS, REQUESTS, lane_queue
from ktrdr.errors import (
    AccessRefusedError,
    AgentError,
    BlobUnavailableError,
    BusUnavailableError,
    PublishBlockedError,
    PublishNackedError,
    PublishTimeoutError,
    RunnerCrashedError,
    UnroutableError,
)
from ktrdr.events import (
    BlobRef,
    CancelRequested,
    Codec,
    Envelope,
    FailureCause,
    Message,
    ModelReady,
    TrainingAccepted,
    TrainingCancelled,
    TrainingFailed,
    TrainingProgress,
    encode,
)
from ktrdr.events.compression import decompress
from ktrdr.training.progress import Progress, Stage
from tests.small_disk import fill
from tests.unit.agent_cases import (
    Model,
    QuickClock,
    ScriptedRunner,
    UnreliableBus,
    World,
    blob_ref,
    eventually,
    manifest,
)
from tests.unit.agent_fixtures import agent, around, directory, runner

__all__ = ["agent", "around", "directory", "runner"]  # fixtures


async def test_a_request_becomes_a_model(around: World, agent: HostAgent, runner: ScriptedRunner) -> None:
    request = await around.backend.ask(seed=11)
    accepted = await around.backend.event(TrainingAccepted)
    assert (accepted.operation_id, accepted.attempt, accepted.agent_id) == (request.operation_id, 1, "agent")
    assert (accepted.slot, accepted.device, accepted.lease_s) == (1, "cpu", 30.0)
    await eventually(lambda: runner.jobs)
    job = runner.jobs[0]
    assert (job.operation_id, job.attempt, job.seed) == (request.operation_id, 1, 11)
    assert (job.strategy_name, job.strategy_yaml) == ("momentum", request.strategy.yaml)
    assert job.datasets[0].path.read_bytes() == b"bars"
    runner.finish(Model(b"weights"))
    ready = await around.backend.event(ModelReady)
    assert ready.claim_id == accepted.claim_id
    assert ready.inline is not None
    assert ready.inline.codec is Codec.ZSTD
    assert decompress(ready.inline.data, limit=100) == b"weights"


async def test_an_answered_model_leaves_nothing_on_the_disk(
    around: World, agent: HostAgent, runner: ScriptedRunner, directory: AgentDirectory
) -> None:
    runner.finish(Model())
    await around.backend.ask()
    await around.backend.event(ModelReady)
    await eventually(lambda: not list(directory.claims.iterdir()))
    await eventually(lambda: around.backend.presence[-1].running == ())


async def test_a_discarded_model_leaves_nothing_on_the_disk_either(
    around: World, agent: HostAgent, runner: ScriptedRunner, directory: AgentDirectory
) -> None:
    around.backend.answers = False
    runner.finish(Model())
    await around.backend.ask()
    ready = await around.backend.event(ModelReady)
    assert list(directory.claims.iterdir())
    await around.backend.discarded(ready)
    await eventually(lambda: not list(directory.claims.iterdir()))


async def test_the_claim_is_on_the_disk_before_anyone_hears_of_it(
    around: World, directory: AgentDirectory, runner: ScriptedRunner
) -> None:
    seen: list[list[str]] = []
    bus = UnreliableBus(MemoryBus(around.broker))

    def look(message: Message) -> None:
        if message.type == TrainingAccepted.type_name():
            seen.append([folder.claim.claim_id for folder in Journal(directory).load()])

    bus.refuse = look
    agent = around.agent(directory, runner, bus=bus)
    await agent.start()
    await around.backend.ask()
    accepted = await around.backend.event(TrainingAccepted)
    assert seen == [[accepted.claim_id]]
    await agent.stop()


async def test_the_message_is_settled_once_it_is_accepted(
    around: World, agent: HostAgent, runner: ScriptedRunner
) -> None:
    await around.backend.ask()
    await eventually(lambda: runner.jobs)
    assert around.broker.queue_depth(lane_queue("any")) == 0


async def test_a_busy_slot_leaves_the_next_request_to_others(
    around: World, agent: HostAgent, runner: ScriptedRunner
) -> None:
    await around.backend.ask()
    await eventually(lambda: runner.jobs)
    await around.backend.ask()
    stats = around.broker.queue_stats(lane_queue("any"))
    assert stats.ready == 1
    assert stats.consumers == 0
    runner.finish(Model())
    await around.backend.event(TrainingAccepted, number=2)


async def test_the_next_job_does_not_wait_for_the_answer_to_the_last(
    around: World, agent: HostAgent, runner: ScriptedRunner
) -> None:
    around.backend.answers = False
    for number in (1, 2, 3):
        runner.finish(Model(f"model {number}".encode()))
        await around.backend.ask()
    await around.backend.event(ModelReady, number=3)
    await eventually(lambda: len(around.backend.running()) == 3)
    await eventually(lambda: around.backend.presence[-1].slots_busy == 0)
    for ready in around.backend.events(ModelReady):
        await around.backend.persisted(ready)
    await eventually(lambda: not around.backend.presence[-1].running)


async def test_two_slots_run_two_jobs(around: World, directory: AgentDirectory) -> None:
    runners = [ScriptedRunner(), ScriptedRunner()]
    agent = around.agent(directory, *runners, options=dataclasses.replace(around.options, slots=2))
    await agent.start()
    for _ in range(3):
        await around.backend.ask()
    await eventually(lambda: all(each.active for each in runners))
    assert {event.slot for event in around.backend.events(TrainingAccepted)} == {1, 2}
    assert len({event.claim_id for event in around.backend.events(TrainingAccepted)}) == 2
    for each in runners:
        each.finish(Model())
    await around.backend.event(TrainingAccepted, number=3)
    await agent.stop()


async def test_an_agent_serves_every_lane_that_it_has(around: World, directory: AgentDirectory) -> None:
    runner = ScriptedRunner()
    options = dataclasses.replace(around.options, lanes=("gpu", "any"))
    agent = around.agent(directory, runner, options=options)
    await agent.start()
    for lane in ("any", "gpu", "any", "gpu", "any"):
        runner.finish(Model())
        await around.backend.ask(lane=lane)
    await around.backend.event(ModelReady, number=5)
    assert around.broker.queue_depth(lane_queue("any")) == 0
    await agent.stop()


async def test_the_preferred_lane_comes_first(around: World, directory: AgentDirectory) -> None:
    in_any = await around.backend.ask(lane="any")
    in_gpu = await around.backend.ask(lane="gpu")
    runner = ScriptedRunner()
    agent = around.agent(directory, runner, options=dataclasses.replace(around.options, lanes=("gpu", "any")))
    await agent.start()
    await eventually(lambda: runner.jobs)
    assert runner.jobs[0].operation_id == in_gpu.operation_id
    runner.finish(Model())
    await eventually(lambda: len(runner.jobs) == 2)
    assert runner.jobs[1].operation_id == in_any.operation_id
    await agent.stop()


# --- requests that are not for this agent


@pytest.mark.parametrize(
    "message",
    [
        Message(body=b"\xc1", message_id="1", type="ktrdr.training.requested.v1"),
        Message(body=b"", message_id="1", type="nonsense"),
        Message(body=b"x" * 20_000_000, message_id="1", type="ktrdr.training.requested.v1"),
    ],
    ids=["not msgpack", "no event", "too large"],
)
async def test_what_cannot_be_read_is_dead_lettered_and_the_next_request_served(
    around: World, directory: AgentDirectory, runner: ScriptedRunner, message: Message
) -> None:
    agent = around.agent(directory, runner)
    await agent.start()
    await around.backend.bus.publish(
        message, exchange=REQUESTS, routing_key="any", mandatory=True, timeout_s=1
    )
    await eventually(lambda: around.broker.queue_depth(DEAD_LETTERS) == 1)
    await around.backend.ask()
    await eventually(lambda: runner.jobs)
    await agent.stop()


async def test_an_order_in_a_lane_is_dead_lettered(
    around: World, agent: HostAgent, runner: ScriptedRunner
) -> None:
    order = CancelRequested(operation_id="op", attempt=1, reason="in the wrong queue")
    message = encode(Envelope(order, event_id="1", sender="x", occurred_at=around.clock.now()))
    await around.backend.bus.publish(
        message, exchange=REQUESTS, routing_key="any", mandatory=True, timeout_s=1
    )
    await eventually(lambda: around.broker.queue_depth(DEAD_LETTERS) == 1)


async def test_a_request_of_a_newer_version_is_left_to_others(
    around: World, agent: HostAgent, runner: ScriptedRunner
) -> None:
    message = Message(body=b"", message_id="1", type="ktrdr.training.requested.v2")
    with capture_logs() as lines:
        await around.backend.bus.publish(
            message, exchange=REQUESTS, routing_key="any", mandatory=True, timeout_s=1
        )
        await eventually(lambda: any("too old" in line["event"] for line in lines))
    # It is in the queue again, and for a while this agent does not ask for it.
    await eventually(lambda: around.broker.queue_stats(lane_queue("any")).ready == 1)
    assert around.broker.queue_stats(lane_queue("any")).consumers == 0


async def test_a_request_for_a_gpu_is_left_to_others(
    around: World, agent: HostAgent, runner: ScriptedRunner, tmp_path: Path
) -> None:
    await around.backend.ask(require_gpu=True)
    other = ScriptedRunner()
    other.device = "cuda"
    with open_directory(tmp_path / "agents", "gpu-box") as directory:
        gpu_agent = around.agent(directory, other)
        await gpu_agent.start()
        accepted = await around.backend.event(TrainingAccepted)
        assert (accepted.agent_id, accepted.device) == ("gpu-box", "cuda")
        await gpu_agent.stop()
    assert not runner.jobs


# --- progress and logs


async def test_progress_is_published_and_the_last_is_never_lost(
    around: World, agent: HostAgent, runner: ScriptedRunner
) -> None:
    await around.backend.ask()
    await eventually(lambda: runner.progress)
    assert runner.progress is not None
    for epoch in range(1, 101):
        runner.progress(
            Progress(
                stage=Stage.TRAIN,
                fraction=epoch / 200,
                epoch=epoch,
                epochs=100,
                metrics={"val_loss": 1 / epoch, "undefined": float("nan")},
                eta_s=100.0 - epoch,
            )
        )
    runner.finish(Model())
    await around.backend.event(ModelReady)
    await eventually(lambda: around.backend.events(TrainingProgress)[-1].epoch == 100)
    events = around.backend.events(TrainingProgress)
    assert [event.sequence for event in events] == list(range(1, len(events) + 1))
    last = events[-1]
    assert (last.stage, last.stage_number, last.stages) == ("Training", 6, 8)
    assert (last.epochs, last.metrics, last.eta_s) == (100, {"val_loss": 0.01}, 0.0)


async def test_progress_that_no_event_can_hold_does_not_end_the_attempt(
    around: World, agent: HostAgent, runner: ScriptedRunner
) -> None:
    await around.backend.ask()
    await eventually(lambda: runner.progress)
    assert runner.progress is not None
    runner.progress(Progress(stage=Stage.TRAIN, fraction=7.0))
    await eventually(lambda: runner.active)
    runner.progress(Progress(stage=Stage.TRAIN, fraction=0.5, eta_s=float("inf")))
    runner.finish(Model())
    await around.backend.event(ModelReady)


async def test_the_runners_lines_are_shown_with_the_operation_and_the_agent(
    around: World, agent: HostAgent, runner: ScriptedRunner
) -> None:
    request = await around.backend.ask(attempt=3)
    await eventually(lambda: runner.log)
    assert runner.log is not None
    with capture_logs(processors=[structlog.contextvars.merge_contextvars]) as lines:
        runner.log(LogLine(level="warning", event="[2/8] Computing indicators", fields={"rows": 3}))
    # The test called it outside of the agent's task, which binds the rest.
    assert lines == [{"event": "[2/8] Computing indicators", "log_level": "warning", "rows": 3}]
    with capture_logs(processors=[structlog.contextvars.merge_contextvars]) as lines:
        runner.finish(Failed(cause=FailureCause.DATA_ERROR, message="m"))
        await around.backend.event(TrainingFailed)
        await eventually(lambda: any(line["event"] == "told the backend" for line in lines))
    [line] = [line for line in lines if line["event"] == "told the backend"]
    assert (line["operation_id"], line["attempt"], line["agent"]) == (request.operation_id, 3, "agent")


# --- failures


@pytest.mark.parametrize(
    ("outcome", "cause"),
    [
        (Failed(cause=FailureCause.STRATEGY_ERROR, message="told", epoch=2), FailureCause.STRATEGY_ERROR),
        (RunnerCrashedError("told"), FailureCause.RUNNER_CRASHED),
        (ZeroDivisionError("told"), FailureCause.INTERNAL_ERROR),
    ],
    ids=["failed", "crashed", "defect"],
)
async def test_a_failure_is_told_and_the_next_job_is_run(
    around: World,
    agent: HostAgent,
    runner: ScriptedRunner,
    directory: AgentDirectory,
    outcome: Failed | Exception,
    cause: FailureCause,
) -> None:
    runner.finish(outcome)
    await around.backend.ask()
    failed = await around.backend.event(TrainingFailed)
    assert failed.cause is cause
    assert "told" in failed.message
    # The broker's confirm is enough for an event without a model.
    await eventually(lambda: not list(directory.claims.iterdir()))
    runner.finish(Model())
    await around.backend.ask()
    await around.backend.event(ModelReady)


async def test_after_a_crash_the_next_runner_is_warmed_at_once(
    around: World, agent: HostAgent, runner: ScriptedRunner
) -> None:
    before = runner.warmed
    runner.finish(RunnerCrashedError())
    await around.backend.ask()
    await around.backend.event(TrainingFailed)
    assert runner.warmed == before + 1


async def test_a_runner_that_never_starts_fails_the_attempt_rather_than_waiting_for_ever(
    around: World, directory: AgentDirectory, runner: ScriptedRunner
) -> None:
    runner.starts_fail = True
    agent = around.agent(directory, runner)
    await agent.start()
    await around.backend.ask()
    accepted = await around.backend.event(TrainingAccepted)
    assert accepted.device == "unknown"
    failed = await around.backend.event(TrainingFailed)
    assert failed.cause is FailureCause.RUNNER_CRASHED
    assert "no module named torch" in failed.message
    runner.starts_fail = False
    runner.finish(Model())
    await around.backend.ask()
    accepted = await around.backend.event(TrainingAccepted, number=2)
    assert accepted.device == "cpu"
    await agent.stop()


async def test_data_that_is_nowhere_fails_the_attempt(
    around: World, agent: HostAgent, runner: ScriptedRunner
) -> None:
    missing = around.backend.dataset().model_copy(update={"blob": blob_ref(b"never stored")})
    await around.backend.ask(datasets=(missing,))
    failed = await around.backend.event(TrainingFailed)
    assert failed.cause is FailureCause.BLOB_UNAVAILABLE
    assert not runner.jobs


async def test_data_that_was_changed_fails_the_attempt(
    around: World, agent: HostAgent, runner: ScriptedRunner, blobs_dir: Path
) -> None:
    dataset = around.backend.dataset(b"good bars")
    sha256 = dataset.blob.sha256
    (blobs_dir / sha256[:2] / sha256[2:]).write_bytes(b"bad bars!")
    await around.backend.ask(datasets=(dataset,))
    failed = await around.backend.event(TrainingFailed)
    assert failed.cause is FailureCause.BLOB_UNAVAILABLE


@pytest.fixture
def blobs_dir(around: World) -> Path:
    return around.blobs.root


@pytest.mark.parametrize("uri", ["file:///etc/passwd", "blob:" + "0" * 64, "http://example.org/x"])
async def test_a_reference_to_elsewhere_is_refused(
    around: World, agent: HostAgent, runner: ScriptedRunner, uri: str
) -> None:
    dataset = around.backend.dataset()
    elsewhere = dataset.model_copy(update={"blob": dataset.blob.model_copy(update={"uri": uri})})
    await around.backend.ask(datasets=(elsewhere,))
    failed = await around.backend.event(TrainingFailed)
    assert failed.cause is FailureCause.BLOB_UNAVAILABLE
    assert not runner.jobs


async def test_a_store_that_is_away_for_a_moment_costs_no_attempt(
    around: World, directory: AgentDirectory, runner: ScriptedRunner
) -> None:
    away = AwayBlobs(around)
    around.blobs = away  # type: ignore[assignment]  # only what a fetch needs
    agent = around.agent(directory, runner)
    await agent.start()
    await around.backend.ask()
    with capture_logs() as lines:
        await eventually(lambda: away.asked >= 2)
    assert [line["event"] for line in lines if line["log_level"] == "warning"] == [
        "training data cannot be fetched yet"
    ]
    away.is_away = False
    await eventually(lambda: runner.active)
    assert not around.backend.events(TrainingFailed)
    await agent.stop()


async def test_a_cancel_does_not_wait_for_a_store_that_is_away(
    around: World, directory: AgentDirectory, runner: ScriptedRunner
) -> None:
    away = AwayBlobs(around)
    around.blobs = away  # type: ignore[assignment]  # only what a fetch needs
    around.clock = QuickClock(factor=0.001)  # the pause before it is asked again outlasts any test
    agent = around.agent(directory, runner)
    await agent.start()
    request = await around.backend.ask()
    await eventually(lambda: away.asked)
    await around.backend.cancel(request)
    await around.backend.event(TrainingCancelled)
    await agent.stop()


class AwayBlobs:
    """A blob store that does not answer until the test lets it."""

    def __init__(self, around: World) -> None:
        self._inner = around.blobs
        self.is_away = True
        self.asked = 0

    def fetch(self, ref: BlobRef, destination: Path) -> Path:
        self.asked += 1
        if self.is_away:
            raise BlobUnavailableError("It does not answer.")
        return self._inner.fetch(ref, destination)


async def test_an_agent_whose_machine_fails_a_job_leaves_the_next_to_others_for_a_while(
    around: World, agent: HostAgent, runner: ScriptedRunner, tmp_path: Path
) -> None:
    runner.finish(RunnerCrashedError())
    await around.backend.ask()
    await around.backend.event(TrainingFailed)
    again = await around.backend.ask()
    with open_directory(tmp_path / "agents", "other") as elsewhere:
        other_runner = ScriptedRunner()
        other = around.agent(elsewhere, other_runner)
        await other.start()
        await eventually(lambda: other_runner.jobs)
        assert other_runner.jobs[0].operation_id == again.operation_id
        await other.stop()


# --- a bus that fails


async def test_an_acceptance_whose_confirm_is_lost_is_said_again_under_the_same_id(
    around: World, directory: AgentDirectory, runner: ScriptedRunner
) -> None:
    bus = UnreliableBus(MemoryBus(around.broker))
    lost = [PublishTimeoutError(), PublishTimeoutError()]
    bus.after = lambda message: lost.pop() if lost and message.type == TrainingAccepted.type_name() else None
    agent = around.agent(directory, runner, bus=bus)
    await agent.start()
    await around.backend.ask()
    await around.backend.event(TrainingAccepted, number=3)
    await eventually(lambda: runner.jobs)
    ids = {event_id for event_id, event in around.backend.heard if isinstance(event, TrainingAccepted)}
    assert len(ids) == 1
    assert len(runner.jobs) == 1
    await agent.stop()


@pytest.mark.parametrize(
    "error",
    [UnroutableError(), PublishNackedError(), AccessRefusedError()],
    ids=["unroutable", "nacked", "403"],
)
async def test_a_request_whose_acceptance_is_refused_is_left_to_others(
    around: World, directory: AgentDirectory, runner: ScriptedRunner, error: Exception, tmp_path: Path
) -> None:
    bus = UnreliableBus(MemoryBus(around.broker))
    bus.refuse = lambda message: error if message.type == TrainingAccepted.type_name() else None
    agent = around.agent(directory, runner, bus=bus)
    await agent.start()
    with capture_logs() as lines:
        await around.backend.ask()
        await eventually(lambda: [line for line in lines if line.get("tries_left") == 0])
        await eventually(lambda: around.broker.queue_stats(lane_queue("any")).ready == 1)
    await eventually(lambda: not list(directory.claims.iterdir()))
    assert not runner.jobs
    assert not any(presence.running for presence in around.backend.presence)
    with open_directory(tmp_path / "agents", "other") as elsewhere:
        other = around.agent(elsewhere, ScriptedRunner())
        await other.start()
        assert (await around.backend.event(TrainingAccepted)).agent_id == "other"
        await other.stop()
    await agent.stop()


SILENCES = pytest.mark.parametrize(
    "error",
    [BusUnavailableError(), PublishTimeoutError(), PublishBlockedError()],
    ids=lambda e: type(e).__name__,
)


@SILENCES
@pytest.mark.parametrize("stored", [True, False], ids=["stored", "not stored"])
async def test_a_claim_whose_acceptance_is_not_confirmed_stands_and_says_so_until_it_is(
    around: World, directory: AgentDirectory, runner: ScriptedRunner, error: Exception, stored: bool
) -> None:
    bus = UnreliableBus(MemoryBus(around.broker))
    silent = True

    def fail(message: Message) -> Exception | None:
        return error if silent and message.type == TrainingAccepted.type_name() else None

    if stored:
        bus.after = fail
    else:
        bus.refuse = fail
    agent = around.agent(directory, runner, bus=bus)
    await agent.start()
    request = await around.backend.ask()
    # It works, and says that it does, but holds the request as long as nobody may know of the claim.
    await eventually(lambda: runner.active)
    await eventually(around.backend.running)
    assert around.backend.running()[0].operation_id == request.operation_id
    assert around.broker.queue_stats(lane_queue("any")).unacked == 1
    silent = False
    await around.backend.event(TrainingAccepted, number=2 if stored else 1)
    await eventually(lambda: around.broker.queue_depth(lane_queue("any")) == 0)
    runner.finish(Model())
    ready = await around.backend.event(ModelReady)
    assert {event.claim_id for event in around.backend.events(TrainingAccepted)} == {ready.claim_id}
    assert len(runner.jobs) == 1
    await agent.stop()


async def test_a_request_whose_acceptance_was_never_confirmed_is_settled_by_its_ending(
    around: World, directory: AgentDirectory, runner: ScriptedRunner
) -> None:
    bus = UnreliableBus(MemoryBus(around.broker))
    bus.refuse = lambda message: (
        PublishTimeoutError() if message.type == TrainingAccepted.type_name() else None
    )
    agent = around.agent(directory, runner, bus=bus)
    await agent.start()
    await around.backend.ask()
    runner.finish(Model())
    await around.backend.event(ModelReady)
    await eventually(lambda: around.broker.queue_depth(lane_queue("any")) == 0)
    await agent.stop()


async def test_a_claim_that_is_not_confirmed_yields_to_the_one_that_is(
    around: World, directory: AgentDirectory, runner: ScriptedRunner
) -> None:
    bus = UnreliableBus(MemoryBus(around.broker))
    bus.refuse = lambda message: (
        PublishTimeoutError() if message.type == TrainingAccepted.type_name() else None
    )
    agent = around.agent(directory, runner, bus=bus)
    await agent.start()
    request = await around.backend.ask()
    await eventually(around.backend.running)
    [running] = around.backend.running()
    await around.backend.cancel(request, claim_id=running.claim_id)
    cancelled = await around.backend.event(TrainingCancelled)
    assert cancelled.claim_id == running.claim_id
    await eventually(lambda: not list(directory.claims.iterdir()))
    await agent.stop()


async def test_an_agent_that_loses_the_broker_while_it_accepts_hands_over_when_it_is_stopped(
    around: World, directory: AgentDirectory, runner: ScriptedRunner
) -> None:
    bus = UnreliableBus(MemoryBus(around.broker))

    def lose(message: Message) -> Exception | None:
        bus.is_down = message.type == TrainingAccepted.type_name()
        return BusUnavailableError() if bus.is_down else None

    bus.after = lose
    options = dataclasses.replace(around.options, publish_timeout_s=0.1)
    agent = around.agent(directory, runner, bus=bus, options=options)
    await agent.start()
    await around.backend.ask()
    await eventually(lambda: runner.active)
    await agent.stop()
    # The backend waits for this claim, and is told after the next start rather than when a lease is over.
    accepted = await around.backend.event(TrainingAccepted)
    again = around.agent(directory, ScriptedRunner())
    await again.start()
    failed = await around.backend.event(TrainingFailed)
    assert (failed.claim_id, failed.cause) == (accepted.claim_id, FailureCause.AGENT_SHUTDOWN)
    await again.stop()


async def test_a_request_that_comes_again_while_it_is_held_is_settled_and_not_run_twice(
    around: World, directory: AgentDirectory
) -> None:
    runners = [ScriptedRunner(), ScriptedRunner()]
    agent = around.agent(directory, *runners, options=dataclasses.replace(around.options, slots=2))
    await agent.start()
    request = await around.backend.ask()
    await eventually(lambda: any(runner.active for runner in runners))
    await around.backend.publisher.publish(request)
    await eventually(lambda: around.broker.queue_depth(lane_queue("any")) == 0)
    other = await around.backend.ask()
    await eventually(lambda: all(runner.active for runner in runners))
    started = sorted(job.operation_id for runner in runners for job in runner.jobs)
    assert started == sorted([request.operation_id, other.operation_id])
    await agent.stop()


async def test_a_request_that_comes_again_after_a_restart_is_settled_and_its_ending_told(
    around: World, directory: AgentDirectory, runner: ScriptedRunner
) -> None:
    request = around.backend.request()
    claim = Claim(operation_id=request.operation_id, attempt=1, claim_id="claim-1")
    folder = Journal(directory).open(claim)
    folder.bundle.write_bytes(b"model")
    folder.record(Announcement(event_id="event-1", ending=Trained(manifest=manifest(b"model"))))
    around.backend.answers = False
    await around.backend.publisher.publish(request)
    agent = around.agent(directory, runner)
    await agent.start()
    await around.backend.event(ModelReady, number=2)
    assert around.broker.queue_depth(lane_queue("any")) == 0
    assert not runner.jobs
    await agent.stop()


async def test_a_lane_that_is_lost_while_another_is_subscribed_to_keeps_no_request(
    around: World, directory: AgentDirectory, runner: ScriptedRunner
) -> None:
    bus = UnreliableBus(MemoryBus(around.broker))
    bus.refuse_queue = lane_queue("gpu")
    agent = around.agent(
        directory, runner, bus=bus, options=dataclasses.replace(around.options, lanes=("any", "gpu"))
    )
    await around.backend.ask()
    await agent.start()
    await eventually(lambda: bus.refused >= 2)
    await eventually(lambda: around.broker.queue_stats(lane_queue("any")).ready == 1)
    bus.refuse_queue = None
    await eventually(lambda: runner.jobs)
    await agent.stop()


async def test_training_goes_on_while_the_broker_is_away(
    around: World, directory: AgentDirectory, runner: ScriptedRunner
) -> None:
    bus = UnreliableBus(MemoryBus(around.broker))
    agent = around.agent(directory, runner, bus=bus)
    await agent.start()
    await around.backend.ask()
    await eventually(lambda: runner.progress)
    bus.is_down = True
    assert runner.progress is not None
    runner.progress(Progress(stage=Stage.TRAIN, fraction=0.5))
    runner.finish(Model())
    await eventually(lambda: list(directory.claims.glob("*/ending.json")))
    assert not around.backend.events(ModelReady)
    bus.is_down = False
    await around.backend.event(ModelReady)
    await agent.stop()


async def test_an_agent_starts_before_its_broker(
    around: World, directory: AgentDirectory, runner: ScriptedRunner
) -> None:
    bus = UnreliableBus(MemoryBus(around.broker))
    bus.is_down = True
    agent = around.agent(directory, runner, bus=bus)
    with capture_logs() as lines:
        await agent.start()
        await eventually(lambda: any(line["event"] == "not listening" for line in lines))
    bus.is_down = False
    await around.backend.ask()
    await eventually(lambda: runner.jobs)
    await agent.stop()


# --- full disks


@pytest.mark.fault
async def test_a_full_disk_fails_the_attempt_and_stops_nothing(
    around: World, runner: ScriptedRunner, small_disk: Path
) -> None:
    with open_directory(small_disk, "agent") as directory:
        agent = around.agent(directory, runner)
        await agent.start()
        filler = fill(small_disk)
        await around.backend.ask()
        failed = await around.backend.event(TrainingFailed)
        assert failed.cause is FailureCause.DISK_FULL
        assert "No space left" in failed.message
        await around.backend.event(TrainingAccepted)
        assert not runner.jobs
        filler.unlink()
        runner.finish(Model())
        await around.backend.ask()
        await around.backend.event(ModelReady)
        await agent.stop()


@pytest.mark.fault
async def test_a_disk_that_is_full_when_the_result_is_recorded_costs_no_model(
    around: World, runner: ScriptedRunner, small_disk: Path
) -> None:
    with open_directory(small_disk, "agent") as directory:
        agent = around.agent(directory, runner)
        await agent.start()
        await around.backend.ask()
        await eventually(lambda: runner.active)
        # Room for the model, but not for its record beside it.
        fill(small_disk, leave_bytes=4096)
        runner.finish(Model(b"x" * 4096))
        await around.backend.event(ModelReady)
        await eventually(lambda: not list(directory.claims.iterdir()))
        await agent.stop()


# --- large models


async def test_a_large_model_goes_by_reference_and_its_blob_is_there_first(
    around: World, directory: AgentDirectory, runner: ScriptedRunner, tmp_path: Path
) -> None:
    bundle = random.Random(1).randbytes(50_000)
    options = dataclasses.replace(around.options, inline_limit_bytes=20_000)
    agent = around.agent(directory, runner, options=options)
    await agent.start()
    runner.finish(Model(bundle))
    await around.backend.ask()
    ready = await around.backend.event(ModelReady)
    assert ready.inline is None
    assert ready.blob is not None
    assert ready.blob.codec is Codec.NONE
    assert around.blobs.get(ready.blob, limit_bytes=100_000) == bundle
    await agent.stop()


async def test_a_model_that_compresses_well_goes_inline(
    around: World, directory: AgentDirectory, runner: ScriptedRunner
) -> None:
    options = dataclasses.replace(around.options, inline_limit_bytes=1000)
    agent = around.agent(directory, runner, options=options)
    await agent.start()
    runner.finish(Model(b"0" * 3000))
    await around.backend.ask()
    ready = await around.backend.event(ModelReady)
    assert ready.inline is not None
    assert decompress(ready.inline.data, limit=3000) == b"0" * 3000
    await agent.stop()


async def test_a_blob_store_that_is_full_is_tried_again(
    around: World, directory: AgentDirectory, runner: ScriptedRunner, tmp_path: Path
) -> None:
    options = dataclasses.replace(around.options, inline_limit_bytes=0)
    # A file where the store's directory of incoming blobs is to be.
    store = DirectoryBlobStore(tmp_path / "other-blobs")
    obstacle = tmp_path / "other-blobs"
    obstacle.write_text("in the way")
    around.blobs, data = store, around.blobs
    around.blobs = _ReadsFrom(data, store)  # type: ignore[assignment]  # the port's two methods that agents use
    agent = around.agent(directory, runner, options=options)
    await agent.start()
    runner.finish(Model())
    with capture_logs() as lines:
        await around.backend.ask()
        await eventually(lambda: any(line["event"] == "result not delivered" for line in lines))
    obstacle.unlink()
    assert (await around.backend.event(ModelReady)).blob is not None
    await agent.stop()


class _ReadsFrom:
    """Fetches from one store and puts into another."""

    def __init__(self, data: DirectoryBlobStore, models: DirectoryBlobStore) -> None:
        self.fetch = data.fetch
        self.put_file = models.put_file


# --- options


@pytest.mark.parametrize(
    "change", [{"lanes": ()}, {"slots": 0}, {"inline_limit_bytes": 9_000_000}], ids=lambda c: next(iter(c))
)
def test_options_that_cannot_work_are_refused(change: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"agent needs|cannot travel"):
        AgentOptions(**change)  # type: ignore[arg-type]  # each of its own type


async def test_an_agent_is_started_once(agent: HostAgent) -> None:
    with pytest.raises(AgentError, match="started before"):
        await agent.start()


async def test_cancelled_attempts_of_the_whole_agent_do_not_end_it(
    around: World, agent: HostAgent, runner: ScriptedRunner
) -> None:
    for _ in range(3):
        request = await around.backend.ask()
        await eventually(lambda: runner.active)
        await around.backend.cancel(request)
        await eventually(lambda: not runner.active)
    await around.backend.event(TrainingCancelled, number=3)
    assert len(runner.jobs) == 3
