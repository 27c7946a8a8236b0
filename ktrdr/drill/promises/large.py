"""Whether the largest message that an agent may send gets through."""

import asyncio

from ktrdr.bus.topology import Queue, Topology
from ktrdr.drill.names import LARGE
from ktrdr.drill.results import BrokenPromiseError
from ktrdr.drill.scene import Drill, Kept, Scene
from ktrdr.errors import BusUnavailableError, PublishNackedError

_ENVELOPE_BYTES = 256 * 1024
"""Around a model, generously: its manifest has a line for each feature."""
_WITHIN_S = 60.0


async def _run(scene: Scene) -> Kept:
    size = scene.inline_limit_bytes + _ENVELOPE_BYTES
    bus = scene.new_bus("drill large")
    try:
        await bus.declare(Topology(queues=(Queue(LARGE),)))
        began = scene.clock.monotonic()
        body = bytes(size)
        try:
            await bus.publish(
                scene.message(body), exchange="", routing_key=LARGE, mandatory=True, timeout_s=_WITHIN_S
            )
        except (PublishNackedError, BusUnavailableError) as error:
            raise BrokenPromiseError(
                f"The broker refuses a message of {size:,} bytes: {error.message}",
                f"Send smaller models by reference: KTRDR_INLINE_LIMIT_BYTES={scene.inline_limit_bytes // 2}"
                ", for every agent; or raise max_message_size in rabbitmq.conf.",
            ) from error
        confirmed_s = scene.clock.monotonic() - began
        async with asyncio.timeout(_WITHIN_S):
            delivery = await bus.get(LARGE)
        if delivery is None or delivery.message.body != body:
            raise BrokenPromiseError(f"A message of {size:,} bytes did not come back as it was.")
        await delivery.ack()
    finally:
        await bus.close()
    return Kept(f"{size:,} bytes, confirmed in {1000 * confirmed_s:.0f} ms")


DRILL = Drill(
    name="large",
    title="A message as large as a model may be",
    promise="models up to KTRDR_INLINE_LIMIT_BYTES fit through the broker",
    run=_run,
    limit_s=130.0,
)
