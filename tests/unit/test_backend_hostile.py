"""Nothing that a message holds stops the backend; what it cannot use is dead-lettered with the reason."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ktrdr.backend import granting
from ktrdr.backend.states import State
from ktrdr.bus.memory import MemoryBus
from ktrdr.bus.topology import BACKEND_EVENTS, DEAD_LETTERS, EVENTS, PRESENCE
from ktrdr.errors import BusUnavailableError
from ktrdr.events import Envelope, TrainingAccepted, encode
from ktrdr.events.message import Message
from tests.unit.backend_cases import World, started, wish


@pytest.fixture
async def world(tmp_path: Path, usual_database_url: str) -> AsyncIterator[World]:
    async with started(tmp_path, database_url=usual_database_url) as world:
        yield world


async def _throw(world: World, message: Message, kind: str = "failed") -> list[str]:
    """Publish a raw message to the backend and return the reasons of dead letters."""
    bus = MemoryBus(world.broker)
    exchange, key = (PRESENCE, "") if kind == "presence" else (EVENTS, f"training.op-1.{kind}")
    await bus.publish(message, exchange=exchange, routing_key=key, mandatory=True, timeout_s=1)
    await world.pass_time()
    consumer = await bus.consume(DEAD_LETTERS, prefetch=100, consumer_tag="test")
    reasons = []
    for _ in range(world.broker.queue_depth(DEAD_LETTERS)):
        delivery = await anext(consumer)
        reasons.append(str(delivery.message.headers["x-ktrdr-reason"]))
        await delivery.ack()
    await bus.close()
    return reasons


async def _still_works(world: World) -> None:
    run = await world.running()
    await world.agent.progress(run, 1)
    await world.agent.present(run)
    await world.agent.finish(run)
    await world.pass_time()
    assert world.get(run).state is State.COMPLETED


def _message(**changes: Any) -> Message:
    event = TrainingAccepted(
        operation_id="op-1", attempt=1, claim_id="c", agent_id="a", slot=1, device="cpu", lease_s=1
    )
    honest = encode(Envelope(event, event_id="e-1", sender="a", occurred_at=datetime.now(UTC)))
    return replace(honest, **changes)


BAD_MESSAGES = {
    "garbage": _message(body=b"\xc1\xff garbage"),
    "empty": _message(body=b""),
    "no map": _message(body=b"\x01"),
    "fields missing": _message(body=b"\x80"),
    "unknown type": _message(type="ktrdr.training.exploded.v1"),
    "unknown version": _message(type="ktrdr.training.accepted.v99"),
    "no type": _message(type=""),
    "other content type": _message(content_type="application/x-python-pickle"),
    "unknown encoding": _message(content_encoding="gzip"),
    "broken compression": _message(content_encoding="zstd"),
    "no id": _message(message_id=""),
    "endless id": _message(message_id="e" * 300),
}


@pytest.mark.parametrize("kind", ["failed", "progress", "presence"])
@pytest.mark.parametrize("what", BAD_MESSAGES)
async def test_a_message_that_cannot_be_read_is_dead_lettered_and_the_next_is_handled(
    world: World, what: str, kind: str
) -> None:
    (reason,) = await _throw(world, BAD_MESSAGES[what], kind)
    assert len(reason) > 10
    await _still_works(world)


async def test_an_event_that_has_no_business_in_a_queue_is_left(world: World) -> None:
    assert await _throw(world, _message(), "progress") == []
    await world.agent.present()
    await _still_works(world)


async def test_a_defect_in_handling_one_event_dead_letters_it_and_stops_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*args: object, **kwargs: object) -> None:
        raise ZeroDivisionError("a defect")

    with monkeypatch.context() as patched:
        patched.setattr(granting, "accepted", broken)
        assert await _throw(world, _message(), "accepted") == ["defect: ZeroDivisionError: a defect"]
    await _still_works(world)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(body=st.binary(max_size=300), encoding=st.sampled_from([None, "zstd", "br"]))
async def test_any_bytes_are_survived(world: World, body: bytes, encoding: str | None) -> None:
    await _throw(world, _message(body=body, content_encoding=encoding))
    assert world.broker.queue_depth(BACKEND_EVENTS) == 0


async def test_an_internal_task_that_crashes_brings_the_backend_down_loudly(tmp_path: Path) -> None:
    world = World.make(tmp_path)
    await world.start()
    run = await world.running()
    waiting = asyncio.create_task(world.backend.wait(run.request.operation_id))
    await world.pass_time()

    def broken(*args: object, **kwargs: object) -> Any:
        raise ZeroDivisionError("a defect")

    world.backend._relay._outbox.mark_sent = broken  # type: ignore[method-assign]  # there is no other way in
    await world.backend.submit(wish())
    await world.pass_time()
    with pytest.raises(ZeroDivisionError):
        await waiting
    with pytest.raises(ZeroDivisionError):
        await world.backend.wait(run.request.operation_id)
    with pytest.raises(ZeroDivisionError):
        await world.stop()
    await world.agent.stop()
    world.store.close()


async def test_a_bus_that_is_closed_under_the_backend_brings_it_down(tmp_path: Path) -> None:
    buses: list[MemoryBus] = []

    def keep(bus: Any) -> Any:
        buses.append(bus)
        return bus

    world = World.make(tmp_path, wrap=keep)
    await world.start()
    await buses[0].close()
    await world.pass_time()
    with pytest.raises(BusUnavailableError):
        await world.stop()
    await world.agent.stop()
    world.store.close()


async def test_a_backend_may_be_stopped_twice_and_without_a_start(tmp_path: Path) -> None:
    world = World.make(tmp_path)
    await world.backend.stop()
    await world.start()
    await world.stop()
    await world.backend.stop()
