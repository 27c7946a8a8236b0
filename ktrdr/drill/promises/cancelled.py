"""Whether a cancellation reaches the run at once."""

from statistics import median

from ktrdr.backend.states import State
from ktrdr.drill.results import BrokenPromiseError
from ktrdr.drill.scene import Drill, Kept, Scene
from ktrdr.drill.site import Site

_TIMES = 3
_LONG_S = 120.0


async def _run(scene: Scene) -> Kept:
    site = await scene.site()
    took_ms = [await _cancel_one(scene, site) for _ in range(_TIMES)]
    typical_ms, limit_ms = median(took_ms), 1000 * scene.pace.cancelled_within_s
    if typical_ms > limit_ms:
        raise BrokenPromiseError(
            f"From the cancellation to the end of the run it took {typical_ms:.0f} ms; at most "
            f"{limit_ms:.0f} ms are promised.",
            "Look at the figures of this drill: a publish that is confirmed slowly makes everything slow. "
            "Bring backend and broker closer together, or give the broker a faster disk.",
        )
    return Kept(
        f"the run had ended {typical_ms:.0f} ms later, and left no model", {"cancel_p50_ms": typical_ms}
    )


async def _cancel_one(scene: Scene, site: Site) -> float:
    operation_id = await site.train(_LONG_S)
    await site.running(operation_id)
    began = scene.clock.monotonic()
    await site.backend.cancel(operation_id, "the drill cancels it")
    await site.until(
        operation_id,
        lambda record: record.state is State.CANCELLED,
        within_s=scene.pace.job_within_s,
        what="the end of a run that was cancelled",
    )
    took_ms = 1000 * (scene.clock.monotonic() - began)
    if site.models_of(operation_id):
        raise BrokenPromiseError("A cancelled operation has a model.")
    return took_ms


DRILL = Drill(
    name="cancelled",
    title="A cancellation, in the middle of a training",
    promise="the run ends within half a second, and never leaves a model",
    run=_run,
    limit_s=120.0,
    needs_site=True,
)
