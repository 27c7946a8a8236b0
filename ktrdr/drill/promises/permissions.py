"""Whether this user may do what an installation does."""

from collections.abc import Awaitable, Callable

from aiormq.abc import AbstractChannel

from ktrdr.addresses import is_loopback
from ktrdr.bus.topology import QueueKind
from ktrdr.drill import advice
from ktrdr.drill.names import PROBE
from ktrdr.drill.results import BrokenPromiseError
from ktrdr.drill.scene import Drill, Kept, Scene
from ktrdr.errors import AccessRefusedError, BusError, PublishBlockedError

_OLDEST = (3, 10)


async def _run(scene: Scene) -> Kept:
    broker = scene.broker
    if broker.server.product == "RabbitMQ" and broker.server.release[:2] < _OLDEST:
        raise BrokenPromiseError(
            f"This is {broker.server}, which lacks what is needed.", "Upgrade to RabbitMQ 3.10 or newer."
        )
    name = broker.wire(PROBE)
    queue = {"x-queue-type": QueueKind.QUORUM.value, "x-dead-letter-exchange": name}
    stream = {"x-queue-type": QueueKind.STREAM.value}
    steps: tuple[tuple[str, Callable[[AbstractChannel], Awaitable[object]]], ...] = (
        ("declaring an exchange", lambda c: c.exchange_declare(name, exchange_type="topic", durable=True)),
        ("declaring a quorum queue", lambda c: c.queue_declare(name, durable=True, arguments={**queue})),
        ("binding a queue", lambda c: c.queue_bind(name, name, "#")),
        ("publishing", lambda c: c.basic_publish(b"drill", exchange=name, routing_key="x", mandatory=True)),
        ("publishing to a queue", lambda c: c.basic_publish(b"drill", routing_key=name, mandatory=True)),
        ("consuming", lambda c: c.basic_get(name)),
        ("deleting a queue", lambda c: c.queue_delete(name)),
        (
            "declaring a stream",
            lambda c: c.queue_declare(name, durable=True, arguments={**stream}),
        ),
        ("deleting a stream", lambda c: c.queue_delete(name)),
        ("declaring a classic queue", lambda c: c.queue_declare(name, exclusive=True)),
        ("deleting a classic queue", lambda c: c.queue_delete(name)),
        ("deleting an exchange", lambda c: c.exchange_delete(name)),
    )
    for what, step in steps:
        try:
            await broker.ask(step, what)
        except AccessRefusedError as error:
            raise BrokenPromiseError(error.message, *advice.permissions(broker)) from error
        except PublishBlockedError:
            raise
        except BusError as error:
            raise BrokenPromiseError(
                error.message, "Enable what this release has: rabbitmqctl enable_feature_flag all"
            ) from error
    return Kept(f"{broker.server}, as {broker.user}, {_encryption(scene)}")


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
    limit_s=30.0,
)
