"""Whether a model whose blob is damaged is noticed."""

import os
from pathlib import Path

from ktrdr.backend.records import HistoryEntry, HistoryKind
from ktrdr.drill.results import BrokenPromiseError, UncheckableError
from ktrdr.drill.scene import Drill, Kept, Scene
from ktrdr.drill.site import Site
from ktrdr.drill.waiting import wait_for
from ktrdr.events import ModelReady

_JOB_S = 2.0
_UPLOADED_WITHIN_S = 20.0


async def _run(scene: Scene) -> Kept:
    site = await scene.site()
    operation_id = await site.train(_JOB_S)
    before = set(_blobs(site))
    agent = site.holder_of(await site.running(operation_id))
    # The blob is uploaded before the event that names it, which waits here until it is damaged.
    agent.proxy.cut()
    try:
        blob = await _uploaded(site, before)
        size = blob.stat().st_size
        os.truncate(blob, size // 2)
    finally:
        agent.proxy.mend()

    def rejected() -> HistoryEntry | None:
        entries = site.history(operation_id)
        return next((entry for entry in entries if entry.kind is HistoryKind.RESULT_REJECTED), None)

    entry = await wait_for(
        rejected, within_s=scene.pace.job_within_s, what="a model with a truncated blob to be rejected"
    )
    await site.completed(operation_id)
    model = await site.check_one_model(operation_id)
    by_reference = [event for event in site.tap.all_of(ModelReady, operation_id) if event.blob is not None]
    if not by_reference:
        raise UncheckableError("The model did not go by reference.")
    return Kept(f"rejected ({entry.message.rstrip('.')}) and made again, whole: attempt {model.attempt}")


async def _uploaded(site: Site, before: set[Path]) -> Path:
    def found() -> Path | None:
        return next((path for path in _blobs(site) if path not in before), None)

    try:
        return await wait_for(found, within_s=_UPLOADED_WITHIN_S, what="the blob of the model")
    except BrokenPromiseError as error:
        raise UncheckableError(error.message) from error


def _blobs(site: Site) -> list[Path]:
    return [path for path in site.blobs_dir.glob("??/*") if path.is_file()]


DRILL = Drill(
    name="truncated",
    title="A model whose blob has lost its second half",
    promise="it is rejected with its reason, and made again",
    run=_run,
    limit_s=120.0,
    needs_site=True,
)
