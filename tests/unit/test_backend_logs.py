"""What the backend keeps of the logs of agents: what it may trust, and never more than so much."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from ktrdr.backend.log_reading import LogRecord, LogTail, read_log
from ktrdr.backend.log_recorder import KEPT_LINES
from ktrdr.backend.states import State
from ktrdr.bus.memory import MemoryBus
from ktrdr.bus.topology import DEAD_LETTERS, LOGS
from ktrdr.errors import OperationNotFoundError
from ktrdr.events import Envelope, LogEntry, TrainingLogged, encode
from tests.unit.backend_cases import PATIENCE_S, Run, World, inline, started

AT = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.fixture
async def world(tmp_path: Path, usual_database_url: str) -> AsyncIterator[World]:
    async with started(tmp_path, database_url=usual_database_url) as world:
        yield world


def logged(run: Run, *numbers: int, level: Any = "info", **changes: Any) -> TrainingLogged:
    lines = tuple(
        LogEntry(number=n, at=AT, level=level, source="executor", event=f"line {n}", fields={"n": n})
        for n in numbers
    )
    return TrainingLogged(**{**run.token, "lines": lines, **changes})


async def say(world: World, run: Run, *numbers: int, **changes: Any) -> None:
    await world.agent.say(logged(run, *numbers, **changes))
    await world.pass_time(1)


def log_of(world: World, run: Run, **options: Any) -> list[LogRecord]:
    return read_log(world.store, run.request.operation_id, **options)


def numbers(lines: list[LogRecord]) -> list[object]:
    return [line.fields["n"] for line in lines]


async def test_lines_are_kept_with_who_said_them_and_when(world: World) -> None:
    run = await world.running()
    await say(world, run, 1, 2, level="warning")
    first, second = log_of(world, run)
    assert (first.event, first.level, first.source, first.at) == ("line 1", "warning", "executor", AT)
    assert (first.agent_id, first.attempt, first.left_out) == ("agent-1", 1, 0)
    assert second.position > first.position


async def test_lines_that_come_before_their_acceptance_is_read_are_kept(world: World) -> None:
    await world.submit()
    run = world.agent.claim(await world.agent.request())
    await say(world, run, 1)
    assert log_of(world, run) == []
    await world.agent.accept(run)
    await say(world, run, 2)
    assert numbers(log_of(world, run)) == [1, 2]


async def test_the_last_lines_come_after_the_end(world: World) -> None:
    run = await world.running()
    await world.agent.finish(run)
    await world.pass_time()
    assert world.get(run).state is State.COMPLETED
    await say(world, run, 1)
    assert numbers(log_of(world, run)) == [1]


async def test_lines_that_come_again_are_kept_once_and_missing_ones_are_counted(world: World) -> None:
    run = await world.running()
    for some in ((3, 4), (3, 4), (4, 10), (9,), (11,)):
        await say(world, run, *some)
    lines = log_of(world, run)
    assert numbers(lines) == [3, 4, 10, 11]
    assert [line.left_out for line in lines] == [2, 0, 5, 0]
    assert [line.left_out for line in log_of(world, run, after=lines[1].position)] == [5, 0]


async def test_lines_of_a_claim_that_holds_nothing_are_dropped(world: World) -> None:
    run = await world.running()
    await say(world, run, 1, claim_id="another")
    await say(world, run, 2, attempt=2)
    await say(world, run, 3, operation_id="op-unknown")
    await world.pass_time(10)
    await say(world, run, 4)
    assert numbers(log_of(world, run)) == [4]
    assert read_log(world.store, "op-unknown") == []
    assert world.backend._logs.waiting == 0
    assert world.broker.queue_depth(DEAD_LETTERS) == 0


async def test_of_each_operation_the_newest_lines_are_kept(world: World) -> None:
    run, other = await world.running(), await world.running()
    await say(world, other, 1)
    for first in range(1, KEPT_LINES + 301, 100):
        await say(world, run, *range(first, first + 100))
    lines = log_of(world, run)
    assert numbers(lines) == list(range(301, KEPT_LINES + 301))
    assert lines[0].left_out == 300
    assert numbers(log_of(world, other)) == [1]


async def test_a_flood_over_the_bus_fills_no_memory_and_holds_up_no_model(world: World) -> None:
    run = await world.running()
    message = encode(
        Envelope(logged(run, *range(1, 201)), event_id="flood", sender="agent-1@machine", occurred_at=AT)
    )
    bus = MemoryBus(world.broker)
    for number in range(500):  # 100,000 lines
        await bus.publish(
            replace(message, message_id=f"flood-{number}"),
            exchange=LOGS,
            routing_key=f"training.{run.request.operation_id}.logged",
            mandatory=True,
            timeout_s=1,
        )
    await world.agent.progress(run, 1)
    await world.agent.finish(run)
    await world.pass_time()
    assert world.get(run).state is State.COMPLETED
    assert world.backend._logs.waiting <= KEPT_LINES
    await bus.close()
    await world.pass_time(2)
    assert len(log_of(world, run)) <= KEPT_LINES


async def test_many_claims_together_fill_no_memory(world: World) -> None:
    run = await world.running()
    for number in range(60):
        event = logged(run, *range(1, 201), claim_id=f"claim-{number}")
        world.backend._logs.record(event)
        assert world.backend._logs.waiting <= 5000
    await say(world, run, 1)
    assert numbers(log_of(world, run)) == [1]


@pytest.mark.parametrize("what", ["garbage", "too many lines", "too much text", "a level that is none"])
async def test_an_event_that_cannot_be_read_is_dead_lettered_and_the_next_is_kept(
    world: World, what: str
) -> None:
    run = await world.running()
    good = logged(run, 1)
    line = good.lines[0]
    bad: dict[str, TrainingLogged] = {
        "garbage": good,
        "too many lines": good.model_copy(update={"lines": (line,) * 201}),
        "too much text": good.model_copy(
            update={
                "lines": (line.model_copy(update={"fields": {"exception": "x" * 4000}}),) * 40,
            }
        ),
        "a level that is none": good.model_copy(
            update={"lines": (line.model_copy(update={"level": "loud"}),)}
        ),
    }
    message = encode(Envelope(bad[what], event_id="e", sender="agent-1@machine", occurred_at=AT))
    if what == "garbage":
        message = replace(message, body=b"\xc1 garbage")
    bus = MemoryBus(world.broker)
    key = f"training.{run.request.operation_id}.logged"
    await bus.publish(message, exchange=LOGS, routing_key=key, mandatory=True, timeout_s=1)
    await world.pass_time()
    assert world.broker.queue_depth(DEAD_LETTERS) == 1
    await say(world, run, 1)
    assert numbers(log_of(world, run)) == [1]
    await bus.close()


async def test_a_log_is_followed_to_its_end_by_many_and_read_once(world: World) -> None:
    run = await world.running()
    await say(world, run, 1)
    tail = LogTail(world.store, run.request.operation_id, clock=world.clock, offload=inline)
    seen: list[list[object]] = [[], [], []]

    async def follow(reader: int, after: int) -> None:
        async for lines in tail.follow(after):
            seen[reader] += numbers(lines)

    first = log_of(world, run)[0].position
    following = [asyncio.create_task(follow(n, after)) for n, after in enumerate((0, 0, first))]
    await world.pass_time(2)
    await say(world, run, 2, 3)
    await world.agent.finish(run)
    await world.pass_time()
    await world.agent.say(logged(run, 4))
    await world.pass_time(5)
    async with asyncio.timeout(PATIENCE_S):
        await asyncio.gather(*following)
    assert seen == [[1, 2, 3, 4], [1, 2, 3, 4], [2, 3, 4]]


async def test_a_log_that_is_over_is_followed_by_nobody_for_long_and_one_that_is_not_there_is_an_error(
    world: World,
) -> None:
    run = await world.running()
    await say(world, run, 1)
    await world.agent.finish(run)
    await world.pass_time(5)
    tail = LogTail(world.store, run.request.operation_id, clock=world.clock, offload=inline)
    lines, is_over = await tail.newer(0)
    assert (numbers(lines), is_over) == ([1], True)
    with pytest.raises(OperationNotFoundError):
        await LogTail(world.store, "op-unknown", clock=world.clock, offload=inline).newer(0)
