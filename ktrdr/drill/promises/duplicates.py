"""Whether what is delivered twice is done once."""

from dataclasses import replace

from ktrdr.bus.topology import Route, route
from ktrdr.drill.results import BrokenPromiseError
from ktrdr.drill.scene import Drill, Kept, Scene
from ktrdr.events import CancelRequested, ModelPersisted, ModelReady, TrainingAccepted, TrainingRequested
from ktrdr.events.base import Event
from ktrdr.events.message import Message

_JOB_S = 4.0
_REPLAYS = 2


async def _run(scene: Scene) -> Kept:
    site, within_s = await scene.site(), scene.pace.job_within_s
    tap = site.tap
    operation_id = await site.train(_JOB_S)
    await site.running(operation_id)
    request = await tap.wait_for(
        TrainingRequested, operation_id, within_s=within_s, what="the request to be seen"
    )
    await _again(scene, request, tap.message_of(request))
    first, second = (
        await tap.wait_for(TrainingAccepted, operation_id, within_s=within_s, what="the first claim"),
        await tap.wait_for(
            TrainingAccepted,
            operation_id,
            within_s=within_s,
            what="another agent to take the same request",
            count=2,
        ),
    )
    await tap.wait_for(
        CancelRequested,
        operation_id,
        within_s=within_s,
        what="the second claim to be told to stop",
        where=lambda order: order.claim_id == second.claim_id,
    )
    result = await tap.wait_for(ModelReady, operation_id, within_s=within_s, what="the model")
    if result.claim_id != first.claim_id:
        raise BrokenPromiseError("The model is that of the second claim, not of the first.")
    await site.completed(operation_id)
    for _ in range(_REPLAYS):
        await _again(scene, result, tap.message_of(result))
    await tap.wait_for(
        ModelPersisted,
        operation_id,
        within_s=within_s,
        what="each delivery of the model to be answered",
        count=1 + _REPLAYS,
    )
    model = await site.check_one_model(operation_id)
    return Kept(
        f"the second claim, of {second.agent_id}, was told to stop; the model came {1 + _REPLAYS} times, was "
        f"answered each time, and is one: {model.name}"
    )


async def _again(scene: Scene, event: Event, message: Message) -> None:
    """Publish what was heard once more, as a broker delivers again: the same message, the same id."""
    where: Route = route(event)
    await scene.publish(
        replace(message, expiration_s=None), exchange=where.exchange, routing_key=where.routing_key
    )


DRILL = Drill(
    name="duplicates",
    title="A request and a model that are delivered again",
    promise="of two claims one is told to stop, and there is one model",
    run=_run,
    limit_s=120.0,
    needs_site=True,
)
