"""An agent that runs for long leaves nothing behind and grows by nothing."""

import asyncio
import dataclasses
import gc
import itertools
import random
import threading

import psutil
import pytest

from benchmarks.noop_runner import NoopRunner
from host_agent.directory import AgentDirectory
from host_agent.journal import Journal
from host_agent.set_aside import MAX_KEPT
from ktrdr.bus.memory import MemoryBus
from ktrdr.errors import BusUnavailableError, PublishTimeoutError, UnroutableError
from ktrdr.events import ModelReady, TrainingCancelled
from tests.unit.agent_cases import UnreliableBus, World, eventually
from tests.unit.agent_fixtures import around, directory

__all__ = ["around", "directory"]  # fixtures

SLOTS = 4


@dataclasses.dataclass(frozen=True)
class Usage:
    """What a process holds."""

    files: int
    threads: int
    tasks: int
    objects: int
    """Of the agent's own classes."""

    @classmethod
    def now(cls) -> "Usage":
        gc.collect()
        objects = sum(str(type(thing).__module__).startswith("host_agent.") for thing in gc.get_objects())
        files = psutil.Process().num_fds()
        return cls(files, threading.active_count(), len(asyncio.all_tasks()), objects)


def unlucky(rng: random.Random) -> Exception | None:
    """Return an error now and then, of any kind."""
    errors = (BusUnavailableError(), PublishTimeoutError(), UnroutableError())
    return rng.choice(errors) if rng.random() < 0.05 else None


@pytest.mark.slow
@pytest.mark.parametrize("reliable", [True, False], ids=["reliable", "unreliable"])
async def test_hundreds_of_jobs_leave_nothing_behind(
    around: World, directory: AgentDirectory, reliable: bool
) -> None:
    bus = UnreliableBus(MemoryBus(around.broker))
    rng = random.Random(1)
    if not reliable:
        bus.refuse = lambda message: unlucky(rng)
        bus.after = lambda message: unlucky(rng)
    options = dataclasses.replace(
        around.options, slots=SLOTS, cache_limit_bytes=10_000, publish_timeout_s=0.5
    )
    agent = around.agent(directory, *(NoopRunner() for _ in range(SLOTS)), bus=bus, options=options)
    await agent.start()
    numbers = itertools.count()

    async def run(jobs: int) -> Usage:
        for _ in range(jobs):
            # Each with data of its own, so that the cache is pruned.
            data = around.backend.dataset(b"%d" % next(numbers) * 300)
            request = await around.backend.ask(datasets=(data,))
            if rng.random() < 0.1:
                await around.backend.cancel(request)
        await eventually(lambda: len(ended(around)) == around.backend.asked, patience_s=60)
        await eventually(lambda: not list(agent._attempts))
        await eventually(lambda: not agent._logs._logs)
        assert not list(directory.claims.iterdir())
        around.backend.heard.clear()
        around.backend.asked = 0
        around.backend.presence.clear()
        return Usage.now()

    before = await run(50)
    after = await run(200)
    assert after.files <= before.files
    assert after.threads <= before.threads + 2  # of the pool that writes files, which grows to its limit
    assert after.tasks <= before.tasks + SLOTS
    assert after.objects <= before.objects + 10 * SLOTS
    assert sum(path.stat().st_size for path in directory.datasets.iterdir()) < 20_000
    assert not agent._datasets._in_use
    await agent.stop()


def ended(around: World) -> set[str]:
    """Return the operations of which an end was heard."""
    events = [event for _, event in around.backend.heard]
    return {event.operation_id for event in events if isinstance(event, ModelReady | TrainingCancelled)}


def test_what_is_set_aside_is_a_limited_number_of_the_newest(directory: AgentDirectory) -> None:
    journal = Journal(directory)
    for number in range(MAX_KEPT + 20):
        (directory.claims / f"claim-{number:04}").mkdir()
        assert journal.load() == []
    kept = sorted(path.name for path in directory.set_aside.iterdir())
    assert len(kept) == MAX_KEPT
    assert kept[0] == "claim-0020"
