"""Whether a job outlives its agent."""

from ktrdr.backend.records import HistoryKind
from ktrdr.drill.results import BrokenPromiseError
from ktrdr.drill.scene import Drill, Kept, Scene

_JOB_S = 3.0
_AFTER_LEASE_S = 40.0


async def _run(scene: Scene) -> Kept:
    site = await scene.site()
    operation_id = await site.train(_JOB_S)
    record = await site.running(operation_id)
    agent = site.holder_of(record)
    epoch = record.progress.epoch if record.progress is not None else 0
    began = scene.clock.monotonic()
    await agent.kill()
    record = await site.completed(operation_id, within_s=scene.pace.lease_s + _AFTER_LEASE_S)
    took_s = scene.clock.monotonic() - began
    await site.check_one_model(operation_id)
    other = site.other_than(agent)
    if record.agent_id != other.agent_id:
        raise BrokenPromiseError(f"The model is not of {other.agent_id}, the agent that was left.")
    kinds = {entry.kind for entry in site.history(operation_id)}
    if not {HistoryKind.LEASE_EXPIRED, HistoryKind.RETRY} <= kinds:
        raise BrokenPromiseError("The history does not say that the first agent was lost.")
    return Kept(
        f"{agent.agent_id} was killed at epoch {epoch}; {other.agent_id} made the model, {took_s:.1f} s "
        f"later (the lease is {scene.pace.lease_s:g} s here)"
    )


DRILL = Drill(
    name="killed",
    title="An agent that is killed in the middle of a training",
    promise="another agent does the job, once, and the history tells it",
    run=_run,
    limit_s=150.0,
    needs_site=True,
)
