"""Whether a training survives that its agent is cut off."""

from ktrdr.drill.results import BrokenPromiseError
from ktrdr.drill.scene import Drill, Kept, Scene

_AFTER_CUT_S = 4.0
_BACK_WITHIN_S = 30.0


async def _run(scene: Scene) -> Kept:
    site, cut_s = await scene.site(), scene.pace.cut_s
    operation_id = await site.train(cut_s + _AFTER_CUT_S)
    record = await site.running(operation_id)
    agent = site.holder_of(record)
    connections = agent.proxy.accepted
    agent.proxy.cut()
    try:
        await scene.clock.sleep(cut_s)
    finally:
        agent.proxy.mend()
    record = await site.completed(operation_id, within_s=cut_s + _AFTER_CUT_S + _BACK_WITHIN_S)
    if record.attempt != 1:
        told = "; ".join(entry.message for entry in site.history(operation_id))
        raise BrokenPromiseError(f"It took {record.attempt} attempts: {told}")
    await site.check_one_model(operation_id)
    if agent.proxy.accepted == connections:
        raise BrokenPromiseError(
            f"The agent was cut off for {cut_s:g} s with heartbeats of {scene.pace.heartbeat_s} s, and kept "
            "its connection: neither side noticed."
        )
    return Kept(f"cut off for {cut_s:g} s, the agent trained on, and its model arrived once, of attempt 1")


DRILL = Drill(
    name="cut-off",
    title="An agent that is cut off in the middle of a training",
    promise="it trains on, connects again, and its model arrives once",
    run=_run,
    limit_s=120.0,
    needs_site=True,
)
