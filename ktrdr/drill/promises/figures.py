"""How fast the broker is from here; nothing depends on it."""

import asyncio
from statistics import median, quantiles

from ktrdr.bus.port import Consumer
from ktrdr.bus.topology import Queue, Topology
from ktrdr.drill.names import FIGURES
from ktrdr.drill.scene import Drill, Kept, Scene

_SINGLE = 100
_MANY = 1000
_OUTSTANDING = 50
_BODY = bytes(1024)


async def _run(scene: Scene) -> Kept:
    await scene.bus.declare(Topology(queues=(Queue(FIGURES),)))
    confirms_s = [await _timed_publish(scene) for _ in range(_SINGLE)]
    consumer = await scene.bus.consume(FIGURES, prefetch=100, consumer_tag="drill/figures")
    try:
        await _drain(consumer, _SINGLE)
        trips_s = []
        for _ in range(_SINGLE):
            began = scene.clock.monotonic()
            await scene.publish(scene.message(_BODY), routing_key=FIGURES)
            await (await anext(consumer)).ack()
            trips_s.append(scene.clock.monotonic() - began)
        began = scene.clock.monotonic()
        draining = asyncio.create_task(_drain(consumer, _MANY))
        try:
            at_once = asyncio.Semaphore(_OUTSTANDING)
            await asyncio.gather(*(_bounded_publish(scene, at_once) for _ in range(_MANY)))
            rate = _MANY / (scene.clock.monotonic() - began)
            await draining
        finally:
            draining.cancel()
            await asyncio.gather(draining, return_exceptions=True)
    finally:
        await consumer.cancel()
    figures = {
        "confirm_p50_ms": 1000 * median(confirms_s),
        "confirm_p99_ms": 1000 * quantiles(confirms_s, n=100)[98],
        "publish_to_consume_p50_ms": 1000 * median(trips_s),
        "confirmed_per_s": rate,
    }
    confirmed = f"{figures['confirm_p50_ms']:.1f} ms (p99 {figures['confirm_p99_ms']:.1f} ms)"
    consumed = f"{figures['publish_to_consume_p50_ms']:.1f} ms"
    return Kept(
        f"a message is confirmed in {confirmed}, consumed in {consumed}; {rate:,.0f} are confirmed a second",
        figures,
    )


async def _timed_publish(scene: Scene) -> float:
    began = scene.clock.monotonic()
    await scene.publish(scene.message(_BODY), routing_key=FIGURES)
    return scene.clock.monotonic() - began


async def _bounded_publish(scene: Scene, at_once: asyncio.Semaphore) -> None:
    async with at_once:
        await scene.publish(scene.message(_BODY), routing_key=FIGURES)


async def _drain(consumer: Consumer, count: int) -> None:
    for _ in range(count):
        await (await anext(consumer)).ack()


DRILL = Drill(
    name="figures",
    title="How fast the broker is from here",
    promise="for information",
    run=_run,
    limit_s=60.0,
    only_measures=True,
)
