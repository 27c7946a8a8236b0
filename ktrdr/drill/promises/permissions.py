"""Whether this user may do what an installation does."""

from collections.abc import Awaitable, Callable

from aiormq.abc import AbstractChannel

from ktrdr.addresses import is_loopback
from ktrdr.bus.topology import DEFAULT_EXCHANGE, QueueKind
from ktrdr.drill import advice
from ktrdr.drill.names import PROBE
from ktrdr.drill.results import BrokenPromiseError
from ktrdr.drill.scene import Drill, Kept, Scene
from ktrdr.errors import AccessRefusedError, BusError, PublishBlockedError

_OLDEST = (3, 10)

_Step = tuple[str, Callable[[AbstractChannel], Awaitable[object]]]


async def _run(scene: Scene) -> Kept:
    server = scene.broker.server
    if server.product == "RabbitMQ" and server.release[:2] < _OLDEST:
        raise BrokenPromiseError(
            f"This is {server}, which lacks what is needed.", "Upgrade to RabbitMQ 3.10 or newer."
        )
    try:
        await _try_everything(scene)
    except AccessRefusedError as error:
        raise BrokenPromiseError(error.message, *advice.permissions(scene.broker)) from error
    except PublishBlockedError:
        raise
    except BusError as error:
        raise BrokenPromiseError(
            error.message, "Enable what this release has: rabbitmqctl enable_feature_flag all"
        ) from error
    return Kept(f"{server}, as {scene.broker.user}, {_encryption(scene)}")


async def _try_everything(scene: Scene) -> None:
    name = scene.broker.wire(PROBE)
    quorum = {"x-queue-type": QueueKind.QUORUM.value, "x-dead-letter-exchange": name}
    stream = {"x-queue-type": QueueKind.STREAM.value}
    await _ask(
        scene,
        ("declaring an exchange", lambda c: c.exchange_declare(name, exchange_type="topic", durable=True)),
        ("declaring a quorum queue", lambda c: c.queue_declare(name, durable=True, arguments={**quorum})),
        ("binding a queue", lambda c: c.queue_bind(name, name, "#")),
    )
    for exchange in (PROBE, DEFAULT_EXCHANGE):
        await scene.publish(scene.message(), exchange=exchange, routing_key=PROBE)
    await _ask(
        scene,
        ("consuming", lambda c: c.basic_get(name)),
        ("deleting a queue", lambda c: c.queue_delete(name)),
        ("declaring a stream", lambda c: c.queue_declare(name, durable=True, arguments={**stream})),
        ("deleting a stream", lambda c: c.queue_delete(name)),
        ("declaring a classic queue", lambda c: c.queue_declare(name, exclusive=True)),
        ("deleting a classic queue", lambda c: c.queue_delete(name)),
        ("deleting an exchange", lambda c: c.exchange_delete(name)),
    )


async def _ask(scene: Scene, *steps: _Step) -> None:
    for what, step in steps:
        await scene.broker.ask(step, what)


def _encryption(scene: Scene) -> str:
    if all(address.tls is not None for address in scene.broker.addresses):
        return "over TLS"
    if all(is_loopback(address.host) for address in scene.broker.addresses):
        return "on this machine"
    return "not encrypted: whoever is on the way can read the password, which amqps:// prevents"


DRILL = Drill(
    name="permissions",
    title="The user may do what an installation does",
    promise="declare, bind, publish, consume and delete, for every kind of queue that is used",
    run=_run,
    limit_s=60.0,
)
