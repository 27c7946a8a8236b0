"""Confirmed publishes through the bus, against aio-pika by hand with the same guarantees."""

import asyncio
import os
import secrets
import statistics
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

from benchmarks.broker import broker_url
from benchmarks.measure import Result, alternate_async, median_ratio
from benchmarks.raw_amqp import RawPublisher
from ktrdr.bus.rabbitmq import RabbitMQBus
from ktrdr.bus.topology import Binding, Exchange, ExchangeKind, Queue, Topology
from ktrdr.events.message import Message
from ktrdr.ids import RandomIds

_MESSAGES = {1: 200, 10: 800, 200: 1500}
"""How many, by how many are outstanding."""
_ROUNDS = 5
_TIMEOUT_S = 10.0


def measure() -> list[Result]:
    return asyncio.run(_measure())


async def _measure() -> list[Result]:
    token = secrets.token_hex(4)
    ours_name, raw_name = f"ktrdr.bench-{token}", f"bench-raw-{token}"
    bus = RabbitMQBus(broker_url(), name="benchmark")
    results = []
    async with RawPublisher(broker_url()) as raw:
        await bus.declare(
            Topology(
                (Exchange(ours_name, ExchangeKind.DIRECT),),
                (Queue(ours_name),),
                (Binding(ours_name, ours_name, "x"),),
            )
        )
        await raw.queue_with_exchange(raw_name)

        async def through_bus(message: Message) -> None:
            await bus.publish(
                message, exchange=ours_name, routing_key="x", mandatory=True, timeout_s=_TIMEOUT_S
            )

        async def by_hand(message: Message) -> None:
            await raw.publish(message, exchange=raw_name, routing_key="x", timeout_s=_TIMEOUT_S)

        try:
            for outstanding, count in _MESSAGES.items():
                ours, theirs = await alternate_async(
                    _burst(through_bus, outstanding, count),
                    _burst(by_hand, outstanding, count),
                    rounds=_ROUNDS,
                )
                speed = 1 / median_ratio(ours, theirs)
                mine, its = statistics.median(ours) / count, statistics.median(theirs) / count
                results.append(
                    Result(
                        f"confirmed publish of 1 KiB, {outstanding} outstanding",
                        mine,
                        "aio-pika by hand, the same guarantees",
                        its,
                        "≥ 0.9 x its speed",
                        speed >= 0.9,
                        f"{1 / mine:,.0f}/s against {1 / its:,.0f}/s: {speed:.2f} x",
                    )
                )
        finally:
            for name in (ours_name, raw_name):
                await raw.delete(name)
    await bus.close()
    return results


def _burst(
    publish: Callable[[Message], Awaitable[None]], outstanding: int, count: int
) -> Callable[[], Awaitable[None]]:
    async def run() -> None:
        ids, body = RandomIds(), os.urandom(1024)
        waiting = iter([_message(ids.event_id(), body) for _ in range(count)])

        async def work() -> None:
            for message in waiting:
                await publish(message)

        async with asyncio.TaskGroup() as group:
            for _ in range(outstanding):
                group.create_task(work())

    return run


def _message(event_id: str, body: bytes) -> Message:
    return Message(
        body,
        message_id=event_id,
        type="ktrdr.training.accepted.v1",
        correlation_id="op_benchmark",
        app_id="host-agent@benchmark",
        timestamp=datetime.now(UTC).replace(microsecond=0),
        headers={
            "cloudEvents:id": event_id,
            "cloudEvents:type": "ktrdr.training.accepted.v1",
            "summary": "attempt 1 · accepted",
            "attempt": 1,
        },
    )
