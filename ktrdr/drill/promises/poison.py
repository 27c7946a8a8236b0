"""Whether a message that nobody can read stops anything."""

from ktrdr.bus.dead_letter_box import DeadLetter, DeadLetterBox
from ktrdr.bus.topology import EVENTS, REQUESTS
from ktrdr.drill.results import BrokenPromiseError
from ktrdr.drill.scene import Drill, Kept, Scene

_WITHIN_S = 10.0
_PAUSE_S = 0.1
_LIMIT = 100
_NONSENSE = 200 * b"\xc1"
"""The one byte that msgpack has no meaning for."""


async def _run(scene: Scene) -> Kept:
    site = await scene.site()
    poison = {
        "backend": scene.message(_NONSENSE, type_name="ktrdr.training.accepted.v1"),
        "agent": scene.message(_NONSENSE, type_name="ktrdr.drill.nonsense.v1"),
    }
    await scene.publish(poison["backend"], exchange=EVENTS, routing_key="training.op-drill.accepted")
    await scene.publish(poison["agent"], exchange=REQUESTS, routing_key="any")
    box = DeadLetterBox(scene.bus, timeout_s=_WITHIN_S)
    reasons = {
        reader: (await _dead(scene, box, message.message_id, reader)).reason
        for reader, message in poison.items()
    }
    for reader, reason in reasons.items():
        if not reason:
            raise BrokenPromiseError(f"What the {reader} could not read died without a reason.")
    await site.check_one_model((await site.completed(await site.train())).operation_id)
    return Kept(f"it is a dead letter ({reasons['backend'].rstrip('.')}), and the next job went through")


async def _dead(scene: Scene, box: DeadLetterBox, message_id: str, reader: str) -> DeadLetter:
    end = scene.clock.monotonic() + _WITHIN_S
    while scene.clock.monotonic() < end:
        for letter in await box.look(_LIMIT):
            if letter.message.message_id == message_id:
                return letter
        await scene.clock.sleep(_PAUSE_S)
    raise BrokenPromiseError(f"What the {reader} could not read was no dead letter {_WITHIN_S:g} s later.")


DRILL = Drill(
    name="poison",
    title="Messages that nobody can read",
    promise="they are dead letters with the reason, and whoever met them goes on",
    run=_run,
    limit_s=90.0,
    needs_site=True,
)
