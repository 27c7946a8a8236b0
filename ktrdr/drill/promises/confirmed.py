"""Whether what the broker has confirmed is there later."""

import asyncio

from ktrdr.bus.rabbitmq import RabbitMQBus
from ktrdr.bus.topology import Queue, Topology
from ktrdr.drill import advice
from ktrdr.drill.names import KEPT
from ktrdr.drill.results import BrokenPromiseError
from ktrdr.drill.scene import Drill, Kept, Scene
from ktrdr.events.message import Message

_COUNT = 200
_PUBLISH_WITHIN_S = 10.0


async def _run(scene: Scene) -> Kept:
    # Bounds are a policy's affair here: a queue of requests has none.
    topology = Topology(queues=(Queue(KEPT),))
    messages = [scene.message(f"drill {number}".encode()) for number in range(_COUNT)]
    publishing = scene.new_bus("drill publisher")
    try:
        await publishing.declare(topology)
        for first in range(0, _COUNT, 50):
            await asyncio.gather(
                *(
                    publishing.publish(
                        message,
                        exchange="",
                        routing_key=KEPT,
                        mandatory=True,
                        timeout_s=_PUBLISH_WITHIN_S,
                    )
                    for message in messages[first : first + 50]
                )
            )
    finally:
        await publishing.close()
    await scene.clock.sleep(scene.pace.keep_s)
    reading = scene.new_bus("drill reader")
    try:
        found = await _read(reading)
    finally:
        await reading.close()
    lost = {message.message_id for message in messages} - {message.message_id for message in found}
    if lost:
        raise BrokenPromiseError(
            f"Of {_COUNT} confirmed messages {len(lost)} were gone {scene.pace.keep_s:g} s later.",
            *advice.policies(
                scene.broker, "max-length", "max-length-bytes", "message-ttl", "expires", "overflow"
            ),
        )
    return Kept(f"{_COUNT} messages were there {scene.pace.keep_s:g} s later, for another connection")


async def _read(bus: RabbitMQBus) -> list[Message]:
    found = []
    while (delivery := await bus.get(KEPT)) is not None:
        found.append(delivery.message)
        await delivery.ack()
    return found


DRILL = Drill(
    name="confirmed",
    title="Messages that the broker has confirmed",
    promise="none of them is lost: not with its connection, not with time",
    run=_run,
    limit_s=60.0,
)
