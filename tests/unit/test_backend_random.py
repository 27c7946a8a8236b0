"""Random worlds: agents that lie dead, repeat themselves, overtake each other; backends that are killed.

A failing seed is a one-line repro: ``pytest tests/unit/test_backend_random.py -k '[7]'``, from the tenth on
with ``KTRDR_CHAOS=1``, as in ``make chaos``. More of them: ``KTRDR_TEST_SEEDS=1000``.
"""

import os
import random
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from ktrdr.backend.instances import BROKER_OWNER
from ktrdr.backend.records import OperationRecord
from ktrdr.backend.states import State
from ktrdr.backend.store import OperationStore
from ktrdr.backend.submitting import Submitter
from ktrdr.bus.memory import MemoryBroker, MemoryBus
from ktrdr.bus.topology import lane_queue
from ktrdr.events import Event, FailureCause, TrainingAccepted, TrainingCancelled, TrainingFailed
from ktrdr.ids import RandomIds
from ktrdr.models.directory import ModelDirectory
from tests.contract.virtual_clock import VirtualClock
from tests.unit.backend_cases import Line, Run, World, wish

SEEDS = (
    range(int(os.environ["KTRDR_TEST_SEEDS"]))
    if "KTRDR_TEST_SEEDS" in os.environ
    else [*range(5), *(pytest.param(seed, marks=pytest.mark.long) for seed in range(5, 40))]
)
_FEW = [*range(5), *(pytest.param(seed, marks=pytest.mark.long) for seed in range(5, 40))]
SEEDS_TOGETHER = SEEDS if "KTRDR_TEST_SEEDS" in os.environ else _FEW
STEPS = 60
CAUSES = [FailureCause.RUNNER_CRASHED, FailureCause.AGENT_RESTARTED, FailureCause.OUT_OF_MEMORY]


class Chaos:
    """Does at random what processes, agents and networks do."""

    def __init__(self, directory: Path, seed: int) -> None:
        self.random = random.Random(seed)
        self.clock = VirtualClock()
        self.directory = directory
        self.world = self.new_world()
        self.operations: list[str] = []
        self.runs: list[Run] = []
        self.said: list[tuple[Event, str]] = []
        self.ends: dict[str, State] = {}
        self.cancelled: set[str] = set()

    def new_world(self) -> World:
        return World.make(self.directory, clock=self.clock)

    def actions(self) -> list[tuple[int, Callable[[], Awaitable[None]]]]:
        return [
            (3, self.submit),
            (6, self.take),
            (5, self.progress),
            (3, self.finish),
            (3, self.fail),
            (2, self.obey),
            (2, self.cancel),
            (1, self.cancel_elsewhere),
            (3, self.present),
            (5, self.repeat),
            (4, self.wait_a_little),
            (1, self.wait_long),
            (1, self.kill),
            (1, self.restart),
        ]

    async def play(self) -> None:
        await self.world.start()
        actions = self.actions()
        weights, choices = [weight for weight, _ in actions], [action for _, action in actions]
        for _ in range(STEPS):
            await self.random.choices(choices, weights)[0]()
            await self.world.pass_time(self.random.choice([0.0, 0.02, 0.3]))
            self.check()

    # --- what may happen

    async def submit(self) -> None:
        submission = await self.world.backend.submit(wish(seed=self.random.randrange(3)))
        self.operations.append(submission.operation.operation_id)

    async def take(self) -> None:
        if self.world.agent.waiting:
            run = self.world.agent.claim(await self.world.agent.request())
            self.runs.append(run)
            if self.random.random() < 0.8:  # else its acceptance is lost
                await self.say(TrainingAccepted(**run.token, slot=1, device="cpu", lease_s=30))

    async def progress(self) -> None:
        if run := self.any_run():
            await self.world.agent.progress(run, self.random.randrange(100))

    async def finish(self) -> None:
        if run := self.any_run():
            await self.say(self.world.agent.model(run, seed=run.request.seed + (self.random.random() < 0.2)))

    async def fail(self) -> None:
        if run := self.any_run():
            await self.say(TrainingFailed(**run.token, cause=self.random.choice(CAUSES), message="it broke"))

    async def obey(self) -> None:
        for stop in self.world.agent.stops():
            told = (stop.operation_id, stop.attempt)
            for run in self.runs:
                of_run = (run.request.operation_id, run.request.attempt)
                if of_run == told and stop.claim_id in (None, run.claim_id):
                    await self.say(TrainingCancelled(**run.token, epoch=1))

    async def cancel(self) -> None:
        if self.operations:
            operation_id = self.random.choice(self.operations)
            if not (await self.world.backend.cancel(operation_id, "enough")).state.terminal:
                self.cancelled.add(operation_id)

    async def cancel_elsewhere(self) -> None:
        if self.operations:
            operation_id = self.random.choice(self.operations)
            with OperationStore.open(self.world.settings, clock=self.clock) as store:
                if not store.cancel(operation_id, "enough").state.terminal:
                    self.cancelled.add(operation_id)

    async def present(self) -> None:
        await self.world.agent.present(*self.random.sample(self.runs, min(3, len(self.runs))))

    async def repeat(self) -> None:
        if self.said:
            await self.world.agent.say(*self.random.choice(self.said))

    async def wait_a_little(self) -> None:
        await self.world.pass_time(2)

    async def wait_long(self) -> None:
        await self.world.pass_time(40)

    async def kill(self) -> None:
        await self.world.kill()
        await self.begin_anew()

    async def restart(self) -> None:
        await self.world.stop()
        await self.begin_anew()

    async def begin_anew(self) -> None:
        self.world = self.new_world()
        await self.world.start()

    # --- what helps

    def any_run(self) -> Run | None:
        return self.random.choice(self.runs) if self.runs else None

    async def say(self, event: Event) -> None:
        event_id = RandomIds().event_id()
        self.said.append((event, event_id))
        await self.world.agent.say(event, event_id)

    # --- what must hold

    def all_operations(self) -> list[OperationRecord]:
        return self.world.store.list_operations(limit=1000)

    def check(self) -> None:
        operations = self.all_operations()
        assert {operation.operation_id for operation in operations} == set(self.operations)
        for operation in operations:
            ended = self.ends.get(operation.operation_id)
            assert ended in (None, operation.state), f"{operation.operation_id} came back"
            if operation.state.terminal:
                self.ends[operation.operation_id] = operation.state
            if operation.operation_id in self.cancelled:
                assert operation.state in (State.CANCELLING, State.CANCELLED)
            assert operation.attempt <= operation.max_attempts
        models = self.world.store.models.list_models(limit=1000)
        completed = {operation.operation_id for operation in operations if operation.state is State.COMPLETED}
        assert sorted(model.operation_id for model in models) == sorted(completed)
        assert sorted(model.version for model in models) == list(range(1, len(models) + 1))

    async def stop(self) -> None:
        await self.world.stop()

    async def come_to_an_end(self) -> None:
        """An agent that works, and time: then every operation ends."""
        for _ in range(200):
            if all(operation.state.terminal for operation in self.all_operations()):
                return
            while self.world.agent.waiting:
                run = await self.world.agent.take()
                await self.world.agent.finish(run)
            await self.world.pass_time(5)
        raise AssertionError([op for op in self.all_operations() if not op.state.terminal])


class ChaosOnABroker(Chaos):
    """Backends that come and go while broker and agents stay; lines that are cut; requests that come back."""

    def new_world(self) -> World:
        broker = MemoryBroker(self.clock)
        self.line = Line(broker)
        return World.make(
            self.directory,
            clock=self.clock,
            broker=broker,
            wrap=lambda bus: self.line,
            backend={"owner": BROKER_OWNER},
        )

    def actions(self) -> list[tuple[int, Callable[[], Awaitable[None]]]]:
        return [
            *super().actions(),
            (2, self.cut),
            (4, self.mend),
            (1, self.block),
            (1, self.wait_very_long),
            (2, self.submit_elsewhere),
            (2, self.give_back),
        ]

    async def kill(self) -> None:
        await self.world.kill_backend()
        await self.begin_anew()

    async def restart(self) -> None:
        await self.world.stop_backend()
        await self.begin_anew()

    async def begin_anew(self) -> None:
        self.line = Line(self.world.broker)
        await self.world.start_another_backend()

    async def cut(self) -> None:
        if not self.line.is_cut:
            await self.line.cut()

    async def mend(self) -> None:
        self.line.blocked = False
        if self.line.is_cut:
            self.line.mend()

    async def block(self) -> None:
        self.line.blocked = True

    async def wait_very_long(self) -> None:
        await self.world.pass_time(310)

    async def submit_elsewhere(self) -> None:
        with OperationStore.open(self.world.settings, clock=self.clock) as store:
            submitter = Submitter(self.world.settings, store, clock=self.clock)
            wished = wish(seed=self.random.randrange(3))
            self.operations.append(submitter.submit(wished).operation.operation_id)

    async def give_back(self) -> None:
        """Be an agent that dies with each request that it takes, a few times."""
        for _ in range(self.random.randrange(1, 8)):
            doomed = MemoryBus(self.world.broker)
            await doomed.consume(lane_queue("any"), prefetch=1, consumer_tag="doomed")
            await doomed.close()

    async def come_to_an_end(self) -> None:
        await self.mend()
        await super().come_to_an_end()


class ChaosTogether(ChaosOnABroker):
    """Two backends on one broker, each with a line of its own: what happens, happens to one or the other."""

    def new_world(self) -> World:
        first = super().new_world()
        line, self.line = self.line, Line(first.broker)
        self.other = World.make(
            self.directory,
            clock=self.clock,
            broker=first.broker,
            wrap=lambda bus: self.line,
            backend={"owner": BROKER_OWNER},
        )
        self.other.agent = first.agent
        self.other_line, self.line = self.line, line
        return first

    def actions(self) -> list[tuple[int, Callable[[], Awaitable[None]]]]:
        return [*super().actions(), (15, self.turn_to_the_other)]

    async def play(self) -> None:
        await self.other.backend.start()
        await super().play()

    async def turn_to_the_other(self) -> None:
        self.world, self.other = self.other, self.world
        self.line, self.other_line = self.other_line, self.line

    async def come_to_an_end(self) -> None:
        await self.mend()
        await self.turn_to_the_other()
        await super().come_to_an_end()

    async def stop(self) -> None:
        await self.other.stop()
        await super().stop()


async def _play(chaos: Chaos) -> None:
    await chaos.play()
    await chaos.come_to_an_end()
    chaos.check()
    directory = ModelDirectory(chaos.world.settings.models_dir)
    for model in chaos.world.store.models.list_models(limit=1000):
        assert directory.verify(model.name, model.files) == []
    dead_letters = chaos.world.broker.queue_depth("ktrdr.dead-letters")
    assert dead_letters == 0
    await chaos.stop()


@pytest.mark.parametrize("seed", SEEDS)
async def test_on_a_broker_too_each_operation_ends_once_and_with_at_most_one_model(
    tmp_path: Path, seed: int
) -> None:
    await _play(ChaosOnABroker(tmp_path, seed))


@pytest.mark.parametrize("seed", SEEDS_TOGETHER)
async def test_with_two_backends_too_each_operation_ends_once_and_with_at_most_one_model(
    tmp_path: Path, seed: int
) -> None:
    await _play(ChaosTogether(tmp_path, seed))


@pytest.mark.parametrize("seed", SEEDS)
async def test_whatever_happens_each_operation_ends_once_and_with_at_most_one_model(
    tmp_path: Path, seed: int
) -> None:
    await _play(Chaos(tmp_path, seed))
