"""Whether a message that no queue takes is an error, rather than lost."""

from ktrdr.bus.topology import Exchange, ExchangeKind, Topology
from ktrdr.drill import advice
from ktrdr.drill.names import NOWHERE
from ktrdr.drill.results import BrokenPromiseError
from ktrdr.drill.scene import Drill, Kept, Scene
from ktrdr.errors import UnroutableError


async def _run(scene: Scene) -> Kept:
    await scene.bus.declare(Topology(exchanges=(Exchange(NOWHERE, ExchangeKind.TOPIC),)))
    try:
        await scene.publish(scene.message(), exchange=NOWHERE, routing_key="nobody.is.bound")
    except UnroutableError:
        return Kept("it came back, as an error")
    raise BrokenPromiseError(
        "The broker confirmed a message that no queue of ktrdr took: something else did.",
        *advice.policies(scene.broker, "alternate-exchange"),
    )


DRILL = Drill(
    name="unroutable",
    title="A request that no queue takes",
    promise="it is an error that a person sees, and never silently lost",
    run=_run,
    limit_s=15.0,
)
