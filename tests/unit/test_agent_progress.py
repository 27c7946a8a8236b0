"""From each epoch that a runner makes to events: none is skipped, though only the newest progress is told."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from host_agent.frames import Progressed
from host_agent.journal import Claim
from host_agent.link import Link
from host_agent.progress_feed import ProgressFeed
from ktrdr.bus.publisher import EventPublisher
from ktrdr.clock import SystemClock
from ktrdr.errors import BusUnavailableError
from ktrdr.events import TrainingProgress, decode
from ktrdr.events.message import Message
from ktrdr.events.training import MAX_EARLIER
from ktrdr.ids import RandomIds
from ktrdr.models.metadata import EpochRecord
from ktrdr.training.cancellation import ManualCancellation
from ktrdr.training.progress import Progress, Stage
from ktrdr.training.reporting import Reporter
from tests.contract.virtual_clock import VirtualClock
from tests.unit.backend_cases import eventually
from tests.unit.training_cases import Recorder


class Wire:
    """A bus that keeps what is published, and can be cut."""

    def __init__(self) -> None:
        self.told: list[TrainingProgress] = []
        self.is_cut = False

    async def publish(self, message: Message, **where: Any) -> None:
        await asyncio.sleep(0)
        if self.is_cut:
            raise BusUnavailableError
        event = decode(message).event
        assert isinstance(event, TrainingProgress)
        self.told.append(event)

    @property
    def epochs(self) -> list[int]:
        """Every epoch that was told of, in the order of the telling."""
        return [
            epoch
            for event in self.told
            for epoch in (*(each.epoch for each in event.earlier), *([event.epoch] if event.epoch else []))
        ]


@pytest.fixture
def wire() -> Wire:
    return Wire()


@pytest.fixture
def feed(wire: Wire) -> ProgressFeed:
    publisher = EventPublisher(
        wire,  # type: ignore[arg-type]  # it is only published to
        sender="host-agent@a",
        ids=RandomIds(),
        clock=SystemClock(),
        timeout_s=60.0,
    )
    link = Link(publisher, clock=SystemClock(), limit_s=60.0)
    claim = Claim(operation_id="op-20260101-000000-00000000", attempt=1, claim_id="c")
    return ProgressFeed(link, claim, agent_id="a", clock=SystemClock())


def progress(epoch: int, earlier: range = range(0)) -> Progress:
    return Progress(
        stage=Stage.TRAIN,
        fraction=0.5,
        epoch=epoch,
        epochs=10**6,
        metrics={"val_loss": float(epoch)} if epoch else {},
        earlier=tuple((each, {"val_loss": float(each)}) for each in earlier),
    )


def all_of(wire: Wire, last: int) -> Callable[[], bool]:
    return lambda: set(wire.epochs) == set(range(1, last + 1))


async def test_epochs_that_come_while_one_is_published_are_told_with_the_next(
    feed: ProgressFeed, wire: Wire
) -> None:
    for epoch in range(1, 30):
        feed.put(progress(epoch))
    await eventually(all_of(wire, 29), "every epoch")
    assert len(wire.told) < 5
    assert {each.epoch: each.metrics for each in wire.told[-1].earlier}[28] == {"val_loss": 28.0}


async def test_no_epoch_is_told_twice_though_the_runner_repeats_them(feed: ProgressFeed, wire: Wire) -> None:
    for epoch in range(1, 20):
        feed.put(progress(epoch, earlier=range(max(1, epoch - 10), epoch)))
        await asyncio.sleep(0)
    await eventually(all_of(wire, 19), "every epoch")
    earlier = [each.epoch for event in wire.told for each in event.earlier]
    assert len(earlier) == len(set(earlier))


async def test_after_a_cut_all_are_told_in_events_of_bounded_size(feed: ProgressFeed, wire: Wire) -> None:
    wire.is_cut = True
    last = 3 * MAX_EARLIER
    for epoch in range(1, last):
        feed.put(progress(epoch))
        await asyncio.sleep(0)
    wire.is_cut = False
    feed.put(progress(last))
    await eventually(all_of(wire, last), "every epoch")
    assert max(len(event.earlier) for event in wire.told) == MAX_EARLIER
    assert [event.sequence for event in wire.told] == sorted({event.sequence for event in wire.told})


def test_who_hears_only_one_report_in_fifty_has_every_epoch(wire: Wire) -> None:
    clock, recorder = VirtualClock(), Recorder()
    reporter = Reporter(recorder, ManualCancellation(), clock)
    with reporter.stage(Stage.TRAIN):
        reporter.begin_epochs(1000, 1)
        for epoch in range(1, 1001):
            clock._elapsed += 0.001
            reporter.epoch_done(EpochRecord(epoch=epoch, train_loss=1.0, val_loss=2.0, learning_rate=0.1))
    heard = [each for each in recorder.seen if each.epoch][49::50]
    told = {epoch for each in heard for epoch in (each.epoch, *(number for number, _ in each.earlier))}
    assert told == set(range(1, 1001))


def test_what_took_long_is_not_repeated() -> None:
    clock, recorder = VirtualClock(), Recorder()
    reporter = Reporter(recorder, ManualCancellation(), clock)
    with reporter.stage(Stage.TRAIN):
        reporter.begin_epochs(10, 1)
        for epoch in range(1, 4):
            clock._elapsed += 5.0
            reporter.epoch_done(EpochRecord(epoch=epoch, train_loss=1.0, val_loss=2.0, learning_rate=0.1))
    assert all(each.earlier == () for each in recorder.seen)


def test_a_runner_hands_them_to_its_agent_as_they_are() -> None:
    reported = progress(5, earlier=range(1, 5))
    assert Progressed.of("run", reported).progress() == reported
