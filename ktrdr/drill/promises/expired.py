"""Whether a request that nobody takes comes back."""

from ktrdr.backend.records import HistoryEntry, HistoryKind
from ktrdr.backend.states import State
from ktrdr.drill import advice
from ktrdr.drill.results import BrokenPromiseError
from ktrdr.drill.scene import Drill, Kept, Scene
from ktrdr.drill.waiting import wait_for

_PATIENCE_S = 5.0


async def _run(scene: Scene) -> Kept:
    site = await scene.site()
    began = scene.clock.monotonic()
    operation_id = await site.train(lane="gpu")

    def returned() -> HistoryEntry | None:
        entries = site.history(operation_id)
        return next((entry for entry in entries if entry.kind is HistoryKind.NOT_ACCEPTED), None)

    try:
        entry = await wait_for(
            returned,
            within_s=scene.pace.accept_within_s + _PATIENCE_S,
            what="a request that no agent takes to come back",
        )
    except BrokenPromiseError as error:
        raise BrokenPromiseError(
            error.message, *advice.policies(scene.broker, "dead-letter-exchange", "message-ttl", "max-length")
        ) from error
    waited_s = scene.clock.monotonic() - began
    await site.backend.cancel(operation_id, "the drill is over")
    await site.until(
        operation_id,
        lambda record: record.state is State.CANCELLED,
        within_s=scene.pace.job_within_s,
        what="its cancellation",
    )
    return Kept(f"after {waited_s:.1f} s: {entry.message}")


DRILL = Drill(
    name="expired",
    title="A request that no agent takes",
    promise="it comes back to the backend, which says why in the history and asks again",
    run=_run,
    limit_s=60.0,
    needs_site=True,
)
