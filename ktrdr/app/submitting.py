"""Trainings for host agents, from a process that has no connection to the broker: `ktrdr serve` has it."""

import asyncio
from collections.abc import Callable
from contextlib import aclosing

from ktrdr.app.embedded import TrainingListener, prepare, submission_of
from ktrdr.backend.records import OperationRecord
from ktrdr.backend.states import State
from ktrdr.backend.store import OperationStore
from ktrdr.backend.submitting import Submitter
from ktrdr.backend.watching import Feed
from ktrdr.backend.wishes import TrainingWish
from ktrdr.blobs.opening import open_blob_store
from ktrdr.clock import SystemClock
from ktrdr.errors import OperationCancelledError
from ktrdr.ids import RandomIds
from ktrdr.settings import Settings
from ktrdr.training.execution_mode_selector import Decision

_EXPLAIN_EVERY_S = 2.0
"""Less is not worth a word: most trainings are taken at once."""


def submit_to_hosts(
    wish: TrainingWish,
    settings: Settings,
    store: OperationStore,
    listener: TrainingListener | None = None,
    decision: Decision | None = None,
) -> OperationRecord:
    """Record a training for the host agents; when this returns, nothing loses it any more. Blocks.

    Args:
        wish: what to train.
        settings: limits and deadlines.
        store: where operations are recorded.
        listener: is told how it goes.
        decision: why it runs there; None: it runs there and never elsewhere.

    Raises:
        StrategyError: the strategy is wrong.
        DataError: its bars are missing or wrong.
        BlobError: the bars cannot be stored where the agents find them.
        DatabaseUnavailableError: the database cannot be written.
    """
    listener = listener or TrainingListener()
    prepared = prepare(wish, settings, open_blob_store(settings))
    listener.on_prepared(prepared.told)
    submission = Submitter(settings, store).submit(submission_of(prepared, wish, RandomIds(), decision))
    listener.on_submitted(submission)
    return submission.operation


async def train_on_hosts(
    wish: TrainingWish,
    settings: Settings,
    *,
    stop: asyncio.Event,
    listener: TrainingListener,
    on_waiting: Callable[[str], None],
    decision: Decision | None = None,
) -> OperationRecord:
    """Have a host agent train, and return the operation once it has ended.

    Args:
        wish: what to train.
        settings: where the database, the bars and the blob store are.
        stop: when set, the operation is cancelled; this returns once that is done.
        listener: is told how it goes.
        on_waiting: told, now and then, what the training waits for while nobody runs it.
        decision: why it runs there; None: it runs there and never elsewhere.

    Raises:
        KtrdrError: as `submit_to_hosts`.
        OperationCancelledError: stopped before there was an operation.
    """
    with await asyncio.to_thread(OperationStore.open, settings) as store:
        if stop.is_set():
            raise OperationCancelledError("Cancelled before anything was started.")
        submitted = await asyncio.to_thread(submit_to_hosts, wish, settings, store, listener, decision)
        operation_id = submitted.operation_id
        async with Feed(store, SystemClock()) as feed:
            beside = [
                asyncio.create_task(_cancel_when_set(stop, store, operation_id)),
                asyncio.create_task(_explain(store, operation_id, on_waiting)),
            ]
            try:
                async with aclosing(feed.watch(operation_id)) as records:
                    async for record in records:
                        listener.on_change(record)
                        if record.state.terminal:
                            return record
            finally:
                for task in beside:
                    task.cancel()
                await asyncio.gather(*beside, return_exceptions=True)
    raise AssertionError("a watch ends with the end of its operation")


async def _explain(store: OperationStore, operation_id: str, on_waiting: Callable[[str], None]) -> None:
    """Tell what it waits for, whenever that is something else than before, until it has ended."""
    told = None
    while True:
        await asyncio.sleep(_EXPLAIN_EVERY_S)
        operation = await asyncio.to_thread(store.get, operation_id)
        if operation.state.terminal:
            return
        if operation.state in (State.PENDING, State.QUEUED):
            why = await asyncio.to_thread(store.why_waiting, operation)
            if why and why != told:
                on_waiting(why)
                told = why


async def _cancel_when_set(stop: asyncio.Event, store: OperationStore, operation_id: str) -> None:
    await stop.wait()
    await asyncio.to_thread(store.cancel, operation_id, "interrupted by the user")
