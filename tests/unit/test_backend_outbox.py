"""What was decided is published at least once, in order, and marked sent only when it is confirmed."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, TypeVar, cast

import pytest
from sqlalchemy import event, select

from ktrdr.backend import dispatching
from ktrdr.backend.attempts import RetryPolicy
from ktrdr.backend.instances import BROKER_OWNER
from ktrdr.backend.outbox import LOOK_AT, Look, Outbox, _all_sent
from ktrdr.backend.publisher import OutboxRelay
from ktrdr.backend.records import OutgoingEvent
from ktrdr.backend.states import State
from ktrdr.backend.tables import outbox
from ktrdr.backend.transactions import Transactions
from ktrdr.backend.work import Work
from ktrdr.bus.memory import MemoryBus
from ktrdr.bus.port import Bus
from ktrdr.bus.publisher import EventPublisher
from ktrdr.clock import SystemClock
from ktrdr.errors import BusUnavailableError, OversizedError, PublishTimeoutError
from ktrdr.events import CancelRequested
from ktrdr.events.codec import decode
from ktrdr.events.message import Message
from ktrdr.ids import RandomIds
from tests.unit.backend_cases import World, eventually, inline, started, wish

T = TypeVar("T")


class Obstructed:
    """A bus that does to publishing what the test wants, and otherwise is the bus that it wraps."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self.before: list[BaseException] = []
        """Raised, one each, in place of publishing."""
        self.after: list[BaseException] = []
        """Raised, one each, after publishing: the confirm is lost."""
        self.hold: asyncio.Event | None = None
        """If there is one, nothing gets through before it is set."""
        self.published: list[Message] = []

    async def publish(self, message: Message, **where: Any) -> None:
        if self.hold is not None:
            await self.hold.wait()
        if self.before:
            raise self.before.pop(0)
        await self._bus.publish(message, **where)
        self.published.append(message)
        if self.after:
            raise self.after.pop(0)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._bus, name)


@pytest.fixture
def buses() -> list[Obstructed]:
    return []


@pytest.fixture
async def world(tmp_path: Path, database_url: str, buses: list[Obstructed]) -> AsyncIterator[World]:
    def wrap(bus: Bus) -> Any:
        buses.append(Obstructed(bus))
        return buses[0]

    async with started(tmp_path, database_url=database_url, wrap=wrap) as world:
        yield world


def _unsent(world: World) -> list[str]:
    query = select(outbox.c.type).where(outbox.c.sent_at.is_(None)).order_by(outbox.c.id)
    with world.store.reading() as connection:
        return list(connection.execute(query).scalars())


async def test_a_request_that_no_queue_takes_is_a_matter_for_a_person_and_goes_out_when_one_does(
    world: World,
) -> None:
    operation_id = await world.submit(lane="tpu")
    await world.pass_time(30)
    assert world.get(operation_id).state is State.PENDING
    failures = [e.message for e in world.store.history(operation_id) if e.kind == "publish_failed"]
    assert len(failures) == 1  # not one for each of some ten tries
    assert "No queue is bound" in failures[0]

    await world.agent.declare_lane("tpu")
    await world.pass_time(6)
    assert world.get(operation_id).state is State.QUEUED


async def test_what_fails_is_tried_again_with_growing_pauses(world: World, buses: list[Obstructed]) -> None:
    buses[0].before = [BusUnavailableError() for _ in range(4)]
    operation_id = (await world.backend.submit(wish())).operation.operation_id
    await world.pass_time(0.1 + 0.2 + 0.4)
    assert len(buses[0].before) == 0
    assert world.get(operation_id).state is State.PENDING
    await world.pass_time(0.9)
    assert world.get(operation_id).state is State.QUEUED


async def test_an_event_whose_confirm_is_lost_goes_out_again_under_the_same_id(
    world: World, buses: list[Obstructed]
) -> None:
    buses[0].after = [PublishTimeoutError()]
    await world.submit()
    assert len(buses[0].published) == 2
    assert len({message.message_id for message in buses[0].published}) == 1
    assert world.agent.waiting == 2
    runs = [await world.agent.take() for _ in range(2)]
    await world.pass_time()
    assert [stop.claim_id for stop in world.agent.stops()] == [runs[1].claim_id]
    await world.agent.finish(runs[0])
    await world.pass_time()
    assert world.get(runs[0]).state is State.COMPLETED


async def test_an_event_that_hangs_does_not_hold_up_other_operations(
    world: World, buses: list[Obstructed]
) -> None:
    buses[0].hold = held = asyncio.Event()
    first = await world.submit()
    await world.pass_time()
    buses[0].hold = None
    second = await world.submit()
    assert world.get(second).state is State.QUEUED
    assert world.get(first).state is State.PENDING
    held.set()
    await world.pass_time()
    assert world.get(first).state is State.QUEUED


async def test_what_is_sent_while_the_outbox_is_being_read_is_not_sent_again(world: World) -> None:
    been_read, reading_may_end = asyncio.Event(), asyncio.Event()
    reading_may_end.set()

    async def slowly(function: Callable[[], T]) -> T:
        outcome = function()
        if outcome:  # of the functions that a relay has, only the reading returns something here
            been_read.set()
            await reading_may_end.wait()
        return outcome

    run = await world.running()
    bus = Obstructed(MemoryBus(world.broker))
    bus.hold = asyncio.Event()
    transactions = Transactions(world.store, "elsewhere", clock=SystemClock(), offload=inline)
    relay = OutboxRelay(
        Outbox(world.store, "elsewhere", "one", RetryPolicy(1.0), transactions),
        EventPublisher(cast(Bus, bus), sender="elsewhere", ids=RandomIds(), clock=world.clock, timeout_s=5.0),
        clock=world.clock,
        offload=slowly,
        on_change=lambda operation: None,
        on_requested=lambda request: None,
    )
    world.store.change(lambda work: work.send(world.agent.stop_of(run), owner="elsewhere"))
    running = asyncio.create_task(relay.run())
    await been_read.wait()
    been_read.clear()
    reading_may_end.clear()
    relay.wake()
    await been_read.wait()
    bus.hold.set()
    await eventually(lambda: _unsent(world) == [], "publishing")
    reading_may_end.set()
    await eventually(relay.idle.is_set, "a pause")
    assert len(bus.published) == 1
    running.cancel()
    await asyncio.wait((running,))


async def test_what_this_process_commits_goes_out_in_order_though_the_outbox_cannot_be_read(
    world: World,
) -> None:
    was_read = asyncio.Event()

    async def once(function: Callable[[], T]) -> T:
        if was_read.is_set():
            await asyncio.Event().wait()
        was_read.set()
        return function()

    run = await world.running()
    bus = Obstructed(MemoryBus(world.broker))
    transactions = Transactions(world.store, "elsewhere", clock=SystemClock(), offload=inline)
    relay = OutboxRelay(
        Outbox(world.store, "elsewhere", "one", RetryPolicy(1.0), transactions),
        EventPublisher(cast(Bus, bus), sender="elsewhere", ids=RandomIds(), clock=world.clock, timeout_s=5.0),
        clock=world.clock,
        offload=once,
        on_change=lambda operation: None,
        on_requested=lambda request, event_id: None,
    )
    running = asyncio.create_task(relay.run())
    await eventually(relay.idle.is_set, "the first reading")
    sent: list[str] = []
    handed: list[OutgoingEvent] = []

    def send_two(work: Work) -> None:
        for _ in range(2):
            work.send(world.agent.stop_of(run), owner="elsewhere")
        handed.extend(work.outgoing)
        sent.extend(outgoing.event_id for outgoing in work.outgoing)

    world.store.change(send_two)
    await eventually(lambda: _unsent(world) == [], "publishing")
    assert [message.message_id for message in bus.published] == sent
    await eventually(relay.idle.is_set, "rest")
    relay._take_committed(handed)  # later than it was got from the outbox, and published
    assert relay.idle.is_set()
    assert len(bus.published) == 2
    running.cancel()
    await asyncio.wait((running,))
    world.store.change(send_two)
    assert len(_unsent(world)) == 2  # for whoever starts next


async def test_many_requests_are_marked_by_as_many_statements_as_two(
    world: World, buses: list[Obstructed]
) -> None:
    buses[0].hold = asyncio.Event()
    submitted = [(await world.backend.submit(wish())).operation.operation_id for _ in range(12)]
    with world.store.reading() as connection:
        rows = connection.execute(
            select(outbox.c.event_id, outbox.c.operation_id).order_by(outbox.c.id)
        ).all()
    requests = [
        OutgoingEvent(row.event_id, row.operation_id, "here", world.store.get_request(row.operation_id)[1])
        for row in rows
    ]
    assert [each.operation_id for each in requests] == submitted
    statements: list[str] = []

    def executed(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        statements.append(statement)

    event.listen(world.store._database._engine, "before_cursor_execute", executed)
    world.store.change(lambda work: _all_sent(work, requests[:2]))
    of_two = len(statements)
    marked = world.store.change(lambda work: _all_sent(work, requests[2:]))
    assert len(statements) == 2 * of_two
    assert [(each.operation_id, each.state) for each in marked if each is not None] == [
        (operation_id, State.QUEUED) for operation_id in submitted[2:]
    ]
    assert marked == [world.get(operation_id) for operation_id in submitted[2:]]
    assert _unsent(world) == []


async def test_what_changed_since_it_was_decided_is_marked_as_it_is_now(
    world: World, buses: list[Obstructed]
) -> None:
    buses[0].hold = asyncio.Event()
    submitted = [(await world.backend.submit(wish())).operation for _ in range(3)]
    await world.backend.cancel(submitted[1].operation_id, "enough")
    requests = [
        OutgoingEvent(
            f"e-{number}",
            operation.operation_id,
            "here",
            world.store.get_request(operation.operation_id)[1],
            operation=operation,
        )
        for number, operation in enumerate(submitted)
    ]
    marked = world.store.change(lambda work: _all_sent(work, requests))
    assert [each.state for each in marked if each is not None] == [
        State.QUEUED,
        State.CANCELLED,
        State.QUEUED,
    ]
    assert marked == [world.get(operation.operation_id) for operation in submitted]


async def test_a_request_expires_when_it_will_be_dispatched_anew(
    world: World, buses: list[Obstructed]
) -> None:
    await world.submit()
    assert [message.expiration_s for message in buses[0].published] == [world.settings.accept_deadline_s]


async def test_what_can_never_be_sent_fails_its_operation(world: World, buses: list[Obstructed]) -> None:
    buses[0].before = [OversizedError("Too large for words.")]
    operation_id = await world.submit()
    operation = world.get(operation_id)
    assert (operation.state, operation.message) == (State.FAILED, "Too large for words.")
    assert _unsent(world) == []


async def test_a_request_that_a_cancel_overtakes_is_not_published(
    world: World, buses: list[Obstructed]
) -> None:
    buses[0].before = [BusUnavailableError()]
    operation_id = (await world.backend.submit(wish())).operation.operation_id
    await world.pass_time(0.05)
    await world.backend.cancel(operation_id, "enough")
    await world.pass_time(10)
    assert [message.type for message in buses[0].published] == ["ktrdr.control.cancel_requested.v1"]


async def test_a_pause_before_a_retry_holds_up_no_answer_to_agents(world: World) -> None:
    run = await world.running()
    await world.agent.fail(run)
    late = world.agent.claim(run.request)
    await world.agent.accept(late)
    await world.pass_time(0.2)
    assert _unsent(world) == ["ktrdr.training.requested.v1"]
    assert [stop.claim_id for stop in world.agent.stops()] == [late.claim_id]


async def test_a_wall_clock_that_jumps_does_not_hold_back_a_retry(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = await world.running()
    await world.agent.fail(run)
    await world.pass_time(0.2)
    epoch = world.clock.now()
    monkeypatch.setattr(world.clock, "now", lambda: epoch.replace(year=2001))
    await world.pass_time(1)
    assert world.agent.waiting == 1


async def test_what_another_process_commits_is_published_within_a_tenth_of_a_second(world: World) -> None:
    operation_id = (await world.backend.submit(wish())).operation.operation_id
    await world.pass_time()
    run = await world.agent.take()
    await world.pass_time()
    world.store.cancel(operation_id, "from elsewhere")
    await world.pass_time(0.1)
    assert [stop.attempt for stop in world.agent.stops()] == [run.request.attempt]


async def test_what_the_dead_did_not_publish_is_forgotten(world: World) -> None:
    run = await world.running()
    world.store.change(lambda work: work.send(world.agent.stop_of(run), owner="dead"))
    await world.pass_time(2)
    assert _unsent(world) == []
    assert world.agent.stops() == []


async def test_nothing_is_published_before_the_start_and_everything_after(tmp_path: Path) -> None:
    world = World.make(tmp_path)
    submission = await world.backend.submit(wish())
    await world.agent.start()
    await world.pass_time(5)
    assert world.agent.waiting == 0
    await world.backend.start()
    await world.pass_time()
    assert world.agent.waiting == 1
    assert world.get(submission.operation.operation_id).state is State.QUEUED
    await world.stop()


async def test_a_request_nobody_could_hear_is_not_written(world: World) -> None:
    run = await world.running()
    world.store.change(lambda work: work.send(world.agent.stop_of(run)))
    assert _unsent(world) == []
    world.store.change(lambda work: dispatching.forget_unsent(work, "nobody"))


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_many_that_wait_for_a_broker_are_each_published_once_when_it_is_back(
    world: World, buses: list[Obstructed]
) -> None:
    many = 150
    buses[0].before = [BusUnavailableError() for _ in range(many)]
    ids = [(await world.backend.submit(wish())).operation.operation_id for _ in range(many)]
    for _ in range(100):
        await world.pass_time(1)
        if len(buses[0].published) == many:
            break
    assert sorted(str(message.correlation_id) for message in buses[0].published) == sorted(ids)
    assert {world.get(operation_id).state for operation_id in ids} == {State.QUEUED}
    assert _unsent(world) == []


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_a_look_into_a_long_outbox_reads_a_part_and_what_is_due_goes_out_in_order(world: World) -> None:
    runs = [await world.running() for _ in range(2)]
    stops = [world.agent.stop_of(run) for run in runs]
    waiting, due = LOOK_AT + 50, 100

    def fill(work: Work) -> None:
        for _ in range(waiting):
            work.send(stops[0], owner=BROKER_OWNER, delay_s=3600.0)
        for index in range(due):
            reason = f"{index:04}"
            work.send(stops[index % 2].model_copy(update={"reason": reason}), owner=BROKER_OWNER)

    world.store.change(fill)
    looks: list[int] = []

    async def counting(function: Callable[[], T]) -> T:
        outcome = function()
        assert isinstance(outcome, Look)
        looks.append(len(outcome.waiting))
        return outcome

    bus = Obstructed(MemoryBus(world.broker))
    # What follows the first of its operation is given back then, and does not wait for it.
    bus.before = [BusUnavailableError()]
    transactions = Transactions(world.store, BROKER_OWNER, clock=SystemClock(), offload=inline)
    relay = OutboxRelay(
        Outbox(world.store, BROKER_OWNER, "one", RetryPolicy(1.0), transactions),
        EventPublisher(
            cast(Bus, bus), sender=BROKER_OWNER, ids=RandomIds(), clock=world.clock, timeout_s=5.0
        ),
        clock=world.clock,
        offload=counting,
        on_change=lambda operation: None,
        on_requested=lambda request, event_id: None,
    )
    running = asyncio.create_task(relay.run())
    await eventually(lambda: len(bus.published) == due - 1, "publishing what did not fail")
    await eventually(relay.idle.is_set, "a pause")

    async def went_out() -> bool:
        await world.pass_time(1)
        return len(_unsent(world)) == waiting

    await eventually(went_out, "a second try")
    running.cancel()
    await asyncio.wait((running,))

    assert max(looks) == LOOK_AT
    reasons = [cast(CancelRequested, decode(message).event).reason for message in bus.published]
    assert sorted(reasons) == [f"{index:04}" for index in range(due)]
    failed = reasons[-1]
    for parity in range(2):
        of_operation = [reason for reason in reasons if int(reason) % 2 == parity and reason != failed]
        assert of_operation == sorted(of_operation)
