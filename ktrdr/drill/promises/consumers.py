"""Whether a consumer that the broker takes away is missed, and comes back."""

import asyncio

from ktrdr.bus.port import Consumer, Delivery
from ktrdr.bus.topology import Queue, Topology
from ktrdr.drill.names import HELD, TAKEN_AWAY
from ktrdr.drill.results import BrokenPromiseError, UncheckableError
from ktrdr.drill.scene import Drill, Kept, Scene

_NOTICED_WITHIN_S = 10.0
_DELIVERED_WITHIN_S = 10.0
_TIMEOUT_OF_QUEUES_SINCE = (3, 12)
_TICK_S = 60.0
"""The broker looks so often for consumers whose time is over."""


async def _run_taken_away(scene: Scene) -> Kept:
    topology = Topology(queues=(Queue(TAKEN_AWAY),))
    await scene.bus.declare(topology)
    consumer = await scene.bus.consume(TAKEN_AWAY, prefetch=1, consumer_tag="drill/taken-away")
    began = scene.clock.monotonic()
    await scene.broker.delete_queue(TAKEN_AWAY)
    await _lost(consumer, _NOTICED_WITHIN_S)
    noticed_s = scene.clock.monotonic() - began
    await scene.bus.declare(topology)
    await _hear_again(scene, TAKEN_AWAY)
    return Kept(f"noticed after {1000 * noticed_s:.0f} ms; the next message arrived")


async def _run_held(scene: Scene) -> Kept:
    server = scene.broker.server
    if server.release[:2] < _TIMEOUT_OF_QUEUES_SINCE:
        raise UncheckableError(
            f"{server} has one time limit for all consumers, in rabbitmq.conf; it can be set for a queue "
            "since 3.12.",
            "Upgrade the broker. Nothing of ktrdr holds a message for longer than 20 minutes, and the "
            "broker's default is 30: leave consumer_timeout at that.",
        )
    return await hold(scene, scene.pace.hold_s)


async def hold(scene: Scene, timeout_s: float) -> Kept:
    """Hold a message until the broker's patience ends, which must be noticed, and the message come again.

    Args:
        scene: where.
        timeout_s: what the queue is told its consumers' limit is.
    """
    arguments: dict[str, str | int] = {
        "x-queue-type": "quorum",
        "x-consumer-timeout": round(1000 * timeout_s),
    }
    await scene.broker.declare_queue(HELD, arguments)
    await scene.publish(scene.message(), routing_key=HELD)
    consumer = await scene.bus.consume(HELD, prefetch=1, consumer_tag="drill/held")
    began = scene.clock.monotonic()
    await _next(consumer)
    try:
        await _lost(consumer, timeout_s + 2 * _TICK_S)
    except BrokenPromiseError as error:
        await consumer.cancel()
        raise UncheckableError(
            f"The broker let a consumer hold a message for {scene.clock.monotonic() - began:.0f} s, though "
            f"the queue was declared with x-consumer-timeout {timeout_s:g} s."
        ) from error
    held_s = scene.clock.monotonic() - began
    await _hear_again(scene, HELD)
    return Kept(f"taken away after {held_s:.0f} s, noticed, and the message came again")


async def _lost(consumer: Consumer, within_s: float) -> None:
    try:
        async with asyncio.timeout(within_s):
            async for delivery in consumer:
                await delivery.nack()
    except TimeoutError:
        raise BrokenPromiseError(
            f"A consumer whose queue was deleted was not missed within {within_s:g} s.",
            "Connect to the broker itself: something in between, such as a proxy for AMQP, keeps its "
            "basic.cancel from its clients.",
        ) from None


async def _hear_again(scene: Scene, queue: str) -> None:
    consumer = await scene.bus.consume(queue, prefetch=1, consumer_tag="drill/again")
    try:
        await scene.publish(scene.message(), routing_key=queue)
        delivery = await _next(consumer)
        await delivery.ack()
    finally:
        await consumer.cancel()


async def _next(consumer: Consumer) -> Delivery:
    try:
        async with asyncio.timeout(_DELIVERED_WITHIN_S):
            return await anext(consumer)
    except TimeoutError:
        raise BrokenPromiseError(
            f"A confirmed message was not delivered within {_DELIVERED_WITHIN_S:g} s."
        ) from None
    except StopAsyncIteration:
        raise BrokenPromiseError("The consumer was lost at once.") from None


TAKEN_AWAY_DRILL = Drill(
    name="consumer-cancelled",
    title="A consumer that the broker takes away",
    promise="it is missed at once, and consumes again",
    run=_run_taken_away,
    limit_s=45.0,
)

HELD_DRILL = Drill(
    name="consumer-timeout",
    title="A consumer that holds a message for a minute too long",
    promise="that the broker then takes it away is noticed, and the message comes again",
    run=_run_held,
    limit_s=240.0,
    is_long=True,
)
