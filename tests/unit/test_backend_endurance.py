"""A backend that is served for long keeps nothing of operations that have ended."""

import asyncio

from ktrdr.backend.states import State
from ktrdr.events import FailureCause
from tests.unit.api_cases import Api
from tests.unit.backend_cases import Run, eventually
from tests.unit.holding import holders
from tests.unit.test_api_logs import OPERATIONS, log

_REMEMBERED = {"StepLog"}
"""Who may hold some that have ended: there is a test that these are a limited number."""


async def test_nothing_is_kept_of_operations_that_have_ended(api: Api) -> None:
    async with api.at_work():
        ended = await _one_of_each_end(api)
        # Of the newest there may be something in a buffer that the next takes over.
        newer = await _one_of_each_end(api)
        assert ended.isdisjoint(newer)

        try:
            await eventually(lambda: holders(api.app, ended).keys() <= _REMEMBERED, "all is let go of")
        except AssertionError as error:
            raise AssertionError(f"they are still held by {dict(holders(api.app, ended))}") from error


async def test_what_is_kept_of_operations_that_have_not_ended_is_found(api: Api) -> None:
    async with api.at_work():
        operation_id = await api.submitted()
        run = await api.agent.take()
        await api.until(operation_id, State.RUNNING)
        await api.agent.progress(run, 1)
        await eventually(
            lambda: {"Leases", "ProgressRecorder"} <= set(holders(api.app, {operation_id})), "it is held"
        )


async def _one_of_each_end(api: Api) -> set[str]:
    """Have operations end in each way, logged and followed by clients, and return them."""
    completed, failed, cancelled, overtaken = runs = [await _running(api) for _ in range(4)]
    async with api.client() as client, asyncio.TaskGroup() as following:
        for operation_id in map(_id, runs):
            for stream in ("events", "logs/stream"):
                # It is answered when the operation has ended.
                following.create_task(client.get(f"{OPERATIONS}/{operation_id}/{stream}"))
        await api.agent.finish(completed)
        await api.agent.fail(failed, FailureCause.STRATEGY_ERROR)
        await api.backend.cancel(_id(cancelled), "enough")
        await api.agent.cancelled(cancelled)
        await api.backend.cancel(_id(overtaken), "enough")
        await api.agent.finish(overtaken)
    never_taken = await api.submitted()
    await api.backend.cancel(never_taken, "enough")
    late = await api.agent.take()
    await eventually(
        lambda: late.claim_id in [stop.claim_id for stop in api.agent.stops()], "it is told to stop"
    )
    ended = {never_taken, *map(_id, runs)}
    assert all(api.store.get(operation_id).state.terminal for operation_id in ended)
    return ended


async def _running(api: Api) -> Run:
    operation_id = await api.submitted()
    run = await api.agent.take()
    await api.until(operation_id, State.RUNNING)
    await log(api, run, 1)
    await api.agent.progress(run, 1)
    return run


def _id(run: Run) -> str:
    return run.request.operation_id
