"""Orders to stop, whenever they come."""

import asyncio
import threading
from pathlib import Path

import pytest

from host_agent.agent import HostAgent
from host_agent.attempts import Stop
from host_agent.directory import AgentDirectory
from ktrdr.bus.memory import MemoryBus
from ktrdr.bus.topology import CONTROL, DEAD_LETTERS, control_queue
from ktrdr.events import (
    BlobRef,
    Message,
    ModelReady,
    TrainingAccepted,
    TrainingCancelled,
    TrainingFailed,
)
from tests.unit.agent_cases import Model, ScriptedRunner, UnreliableBus, World, eventually
from tests.unit.agent_fixtures import agent, around, directory, runner

__all__ = ["agent", "around", "directory", "runner"]  # fixtures


async def test_a_cancelled_run_ends_cancelled(
    around: World, agent: HostAgent, runner: ScriptedRunner, directory: AgentDirectory
) -> None:
    request = await around.backend.ask()
    await eventually(lambda: runner.active)
    await around.backend.cancel(request)
    cancelled = await around.backend.event(TrainingCancelled)
    assert (cancelled.operation_id, cancelled.epoch) == (request.operation_id, 1)
    await eventually(lambda: not list(directory.claims.iterdir()))


async def test_one_claim_can_be_stopped_alone(
    around: World, agent: HostAgent, runner: ScriptedRunner
) -> None:
    await around.backend.ask()
    accepted = await around.backend.event(TrainingAccepted)
    await eventually(lambda: runner.active)
    await around.backend.cancel(accepted, claim_id="another")
    await around.backend.cancel(accepted, claim_id=accepted.claim_id)
    assert (await around.backend.event(TrainingCancelled)).claim_id == accepted.claim_id


@pytest.mark.parametrize("change", ["operation_id", "attempt", "claim_id"])
async def test_an_order_to_others_stops_nothing(
    around: World, agent: HostAgent, runner: ScriptedRunner, change: str
) -> None:
    await around.backend.ask()
    accepted = await around.backend.event(TrainingAccepted)
    await eventually(lambda: runner.active)
    other = {"operation_id": "op-other", "attempt": 2, "claim_id": "another"}
    await around.backend.cancel(
        accepted.model_copy(update={change: other[change]}),
        claim_id="another" if change == "claim_id" else None,
    )
    await eventually(lambda: around.broker.queue_depth(control_queue("agent")) == 0)
    runner.finish(Model())
    await around.backend.event(ModelReady)
    assert not around.backend.events(TrainingCancelled)


async def test_an_attempt_that_is_cancelled_before_it_is_accepted_is_never_started(
    around: World, directory: AgentDirectory, runner: ScriptedRunner
) -> None:
    bus = UnreliableBus(MemoryBus(around.broker))
    held: list[Message] = []
    agent = around.agent(directory, runner, bus=bus)

    def cancel_first(message: Message) -> None:
        # While the acceptance is under way, the backend tells everyone to stop.
        if message.type == TrainingAccepted.type_name():
            held.append(message)
            order.set()

    order = asyncio.Event()
    bus.after = cancel_first
    await agent.start()
    request = around.backend.request()

    async def cancel_when_accepting() -> None:
        await order.wait()
        await around.backend.cancel(request)

    cancelling = asyncio.create_task(cancel_when_accepting())
    await around.backend.publisher.publish(request)
    await around.backend.event(TrainingCancelled)
    await cancelling
    assert held
    assert not around.backend.events(ModelReady)
    await agent.stop()


class SlowBlobs:
    """A blob store from which nothing comes until the test lets it."""

    def __init__(self, around: World) -> None:
        self._inner = around.blobs
        self.asked = threading.Event()
        self.go_on = threading.Event()

    def fetch(self, ref: BlobRef, destination: Path) -> Path:
        self.asked.set()
        assert self.go_on.wait(60)
        return self._inner.fetch(ref, destination)


async def test_a_cancel_while_the_data_is_fetched_does_not_wait_for_it(
    around: World, directory: AgentDirectory, runner: ScriptedRunner
) -> None:
    slow = SlowBlobs(around)
    around.blobs = slow  # type: ignore[assignment]  # only what a fetch needs
    agent = around.agent(directory, runner)
    await agent.start()
    request = await around.backend.ask()
    await eventually(slow.asked.is_set)
    await around.backend.cancel(request)
    await around.backend.event(TrainingCancelled)
    assert not runner.jobs
    slow.go_on.set()
    await agent.stop()


async def test_a_result_that_comes_after_the_cancel_is_not_sent(
    around: World, agent: HostAgent, runner: ScriptedRunner, directory: AgentDirectory
) -> None:
    request = await around.backend.ask()
    await eventually(lambda: runner.active)
    runner.finish(Model())
    # Both are there before the runner's task goes on.
    [attempt] = agent._attempts.running
    attempt.request_stop(Stop.CANCELLED)
    cancelled = await around.backend.event(TrainingCancelled)
    assert cancelled.operation_id == request.operation_id
    await eventually(lambda: not list(directory.claims.iterdir()))
    assert not around.backend.events(ModelReady)


async def test_a_cancel_after_the_result_makes_the_agent_ask_again_at_once(
    around: World, agent: HostAgent, runner: ScriptedRunner, directory: AgentDirectory
) -> None:
    around.backend.answers = False
    runner.finish(Model())
    await around.backend.ask()
    ready = await around.backend.event(ModelReady)
    await around.backend.cancel(ready)
    again = await around.backend.event(ModelReady, number=2)
    assert again == ready
    ids = [event_id for event_id, event in around.backend.heard if isinstance(event, ModelReady)]
    assert ids[0] == ids[1]
    await around.backend.discarded(ready)
    await eventually(lambda: not list(directory.claims.iterdir()))


async def test_the_same_order_twice_is_as_good_as_once(
    around: World, agent: HostAgent, runner: ScriptedRunner
) -> None:
    request = await around.backend.ask()
    await eventually(lambda: runner.active)
    for _ in range(3):
        await around.backend.cancel(request)
    await around.backend.event(TrainingCancelled)
    await eventually(lambda: around.broker.queue_depth(control_queue("agent")) == 0)
    runner.finish(Model())
    await around.backend.ask()
    await around.backend.event(ModelReady)
    assert len(around.backend.events(TrainingCancelled)) == 1


async def test_a_failure_is_told_as_such_even_if_it_was_cancelled_meanwhile(
    around: World, agent: HostAgent, runner: ScriptedRunner
) -> None:
    await around.backend.ask()
    await eventually(lambda: runner.active)
    runner.finish(ZeroDivisionError())
    agent._attempts.running[0].request_stop(Stop.CANCELLED)
    await around.backend.event(TrainingFailed)


@pytest.mark.parametrize(
    "message",
    [
        Message(body=b"\xc1", message_id="1", type="ktrdr.control.cancel_requested.v1"),
        Message(body=b"", message_id="1", type="ktrdr.control.cancel_requested.v9"),
        Message(body=b"", message_id="1", type=""),
    ],
    ids=["not msgpack", "unknown version", "no type"],
)
async def test_an_unreadable_order_is_dead_lettered_and_the_next_one_obeyed(
    around: World, agent: HostAgent, runner: ScriptedRunner, message: Message
) -> None:
    await eventually(agent._control.listening.is_set)
    await around.backend.bus.publish(
        message, exchange=CONTROL, routing_key="training.op.x", mandatory=True, timeout_s=1
    )
    await eventually(lambda: around.broker.queue_depth(DEAD_LETTERS) == 1)
    request = await around.backend.ask()
    await eventually(lambda: runner.active)
    await around.backend.cancel(request)
    await around.backend.event(TrainingCancelled)
