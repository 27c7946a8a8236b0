"""The embedded deployment: backend and host agent in one process, on an in-memory bus."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractContextManager, asynccontextmanager, closing
from dataclasses import dataclass
from typing import TYPE_CHECKING

from host_agent.agent import HostAgent
from host_agent.directory import claim_directory
from host_agent.options import AgentOptions
from ktrdr.backend.dispatching import LOCAL_LANE
from ktrdr.backend.preparation import PreparedTraining, prepare_training
from ktrdr.backend.records import OperationRecord, Submission, SubmitTraining
from ktrdr.backend.service import Backend
from ktrdr.backend.store import OperationStore
from ktrdr.backend.wishes import Preparation, TrainingWish
from ktrdr.blobs.opening import open_blob_store
from ktrdr.blobs.store import BlobStore
from ktrdr.bus.memory import MemoryBroker, MemoryBus
from ktrdr.clock import Clock, SystemClock
from ktrdr.errors import KtrdrError, OperationCancelledError, StoreError
from ktrdr.ids import IdFactory, RandomIds
from ktrdr.settings import Settings
from ktrdr.training.execution_mode_selector import Decision, Place

if TYPE_CHECKING:
    from ktrdr.models.report.context import ReportContext


@dataclass(frozen=True, slots=True)
class Embedded:
    """Backend and host agent in this process, on an in-memory bus."""

    settings: Settings
    store: OperationStore
    blobs: BlobStore
    bus: MemoryBus
    """That of the backend."""
    backend: Backend
    agent: HostAgent

    async def start(self) -> None:
        """Begin to work: also on what was left unfinished by processes that have ended."""
        await self.backend.start()
        await self.agent.start()


@asynccontextmanager
async def embedded(
    settings: Settings, *, clock: Clock | None = None, ids: IdFactory | None = None
) -> AsyncIterator[Embedded]:
    """Wire the embedded deployment; `Embedded.start` starts it, leaving the block stops it.

    The runner process is warmed up at once, so that its imports overlap with what the caller prepares.
    """
    # The same store as everybody's: `ktrdr serve` may go on with what this process leaves unfinished.
    with closing(open_blob_store(settings)) as blobs:
        async with in_process(
            settings,
            blobs=blobs,
            open_store=lambda: OperationStore.open(settings),
            clock=clock or SystemClock(),
            ids=ids or RandomIds(),
        ) as app:
            yield app


@asynccontextmanager
async def in_process(
    settings: Settings,
    *,
    blobs: BlobStore,
    open_store: Callable[[], AbstractContextManager[OperationStore]],
    clock: Clock,
    ids: IdFactory,
    warm: bool = True,
) -> AsyncIterator[Embedded]:
    """Wire backend and agent of one process; see `embedded`.

    The store is opened in a thread; unless it is to be warm, the runner is started with its first training.
    """
    options = AgentOptions.from_settings(settings, lanes=(LOCAL_LANE,), prewarm=warm)
    broker = MemoryBroker(clock)
    bus_of_agent, bus_of_backend = MemoryBus(broker), MemoryBus(broker)
    with claim_directory(settings.agents_dir, prefix="embedded") as directory:
        agent = HostAgent(
            bus=bus_of_agent, blobs=blobs, directory=directory, options=options, clock=clock, ids=ids
        )
        if warm:
            agent.warm()
        try:
            with await asyncio.to_thread(open_store) as store:
                backend = Backend(
                    settings,
                    bus=bus_of_backend,
                    store=store,
                    blobs=blobs,
                    clock=clock,
                    ids=ids,
                    render_report=render_report,
                )
                try:
                    yield Embedded(settings, store, blobs, bus_of_backend, backend, agent)
                finally:
                    # The agent first: what it says at its end is still heard.
                    await agent.stop()
                    await backend.stop()
        finally:
            await agent.stop()
            await bus_of_agent.close()
            await bus_of_backend.close()


def render_report(files: Mapping[str, bytes], context: "ReportContext") -> bytes:
    """Return ``report.html`` of a model's files."""
    # Here, because it is needed once per model, and half of all runs of the program make none.
    from ktrdr.models import report

    return report.render_report(files, context)


@dataclass(slots=True)
class TrainingListener:
    """Is told how a training goes; each function is optional, and called in the event loop."""

    on_prepared: Callable[[Preparation], None] = lambda prepared: None
    on_submitted: Callable[[Submission], None] = lambda submission: None
    on_change: Callable[[OperationRecord], None] = lambda record: None
    """Called with every state and with the newest progress."""


def prepare(wish: TrainingWish, settings: Settings, blobs: BlobStore) -> PreparedTraining:
    """Check the strategy and snapshot its bars; see `prepare_training`."""
    return prepare_training(
        wish.strategy,
        strategies_dir=settings.strategies_dir,
        data_dir=settings.data_dir,
        blobs=blobs,
        start=wish.start,
        end=wish.end,
        overrides=wish.overrides,
    )


def submission_of(
    prepared: PreparedTraining,
    wish: TrainingWish,
    ids: IdFactory,
    decision: Decision | None = None,
    *,
    may_resume: bool = True,
) -> SubmitTraining:
    """Return what the backend is asked, with a random seed if none was wished for.

    Args:
        prepared: what `prepare` has made of the wish.
        wish: what to train.
        ids: for the seed.
        decision: where; None: with whom it is submitted to, and nowhere else.
        may_resume: whether it goes on with the same that was interrupted, if there is any.
    """
    is_local = decision is not None and decision.where is Place.LOCAL
    return SubmitTraining(
        strategy=prepared.strategy,
        symbol=prepared.symbol,
        timeframe=prepared.timeframe,
        datasets=prepared.datasets,
        seed=ids.seed() if wish.seed is None else wish.seed,
        lane=LOCAL_LANE if is_local else wish.lane,
        require_gpu=wish.require_gpu,
        decision=decision,
        fingerprint=prepared.fingerprint(wish.seed) if may_resume else None,
    )


async def train_embedded(
    wish: TrainingWish,
    settings: Settings,
    *,
    stop: asyncio.Event,
    listener: TrainingListener | None = None,
    decision: Decision | None = None,
) -> OperationRecord:
    """Train in this process and return the operation once it has ended.

    What earlier processes left unfinished is picked up on the way, and finished too before this returns.

    Args:
        wish: what to train.
        settings: where everything is.
        stop: when set, the operation is cancelled, or not even submitted; what was picked up stays pending.
        listener: is told how it goes.
        decision: why it runs here; is recorded.

    Raises:
        StrategyError: the strategy is wrong.
        DataError: its bars are missing or wrong.
        OperationCancelledError: stopped before there was an operation.
        StoreError: stopped, but that cannot be recorded.
    """
    listener = listener or TrainingListener()
    ids = RandomIds()
    async with embedded(settings, ids=ids) as app:
        prepared = await asyncio.to_thread(prepare, wish, settings, app.blobs)
        listener.on_prepared(prepared.told)
        if stop.is_set():
            raise OperationCancelledError("Cancelled before anything was started.")
        # Before the start, so that it comes before what others have left, and finds what is to be resumed
        # as it was left.
        submission = await app.backend.submit(submission_of(prepared, wish, ids, decision))
        listener.on_submitted(submission)
        await app.start()
        operation_id = submission.operation.operation_id
        watching = asyncio.create_task(_watch(app.backend, operation_id, listener.on_change))
        canceller = asyncio.create_task(_cancel_when_set(stop, app.backend, operation_id))
        try:
            await asyncio.wait((watching, canceller), return_when=asyncio.FIRST_COMPLETED)
            if canceller.done():
                canceller.result()
            record = await watching
        finally:
            for task in (watching, canceller):
                task.cancel()
            await asyncio.gather(watching, canceller, return_exceptions=True)
        await _finish_all(app.backend, stop, listener.on_change)
        return record


async def submit_for_later(
    wish: TrainingWish, settings: Settings, decision: Decision | None = None
) -> OperationRecord:
    """Record a training without running it; the next process that works goes on with it.

    The decision, why it runs here, is recorded too.

    Raises:
        StrategyError: the strategy is wrong.
        DataError: its bars are missing or wrong.
    """

    def ask(blobs: BlobStore) -> SubmitTraining:
        return submission_of(prepare(wish, settings, blobs), wish, RandomIds(), decision)

    return await keep_for_later(ask, settings)


async def keep_for_later(ask: Callable[[BlobStore], SubmitTraining], settings: Settings) -> OperationRecord:
    """Record what is asked for without running it; the next process that works goes on with it.

    Args:
        ask: returns what is to be submitted, given where its bars are; it may block.
        settings: where everything is.
    """
    ids, clock = RandomIds(), SystemClock()
    with (
        closing(open_blob_store(settings)) as blobs,
        await asyncio.to_thread(OperationStore.open, settings) as store,
    ):
        asked = await asyncio.to_thread(ask, blobs)
        bus = MemoryBus(MemoryBroker(clock))
        backend = Backend(settings, bus=bus, store=store, blobs=blobs, clock=clock, ids=ids)
        try:
            return (await backend.submit(asked)).operation
        finally:
            await backend.stop()
            await bus.close()


async def work_until_idle(
    settings: Settings, *, stop: asyncio.Event, on_change: Callable[[OperationRecord], None]
) -> int:
    """Run what is pending or was left unfinished, until nothing is left; return how many operations ended.

    When ``stop`` is set, what runs is given back and stays pending.
    """
    async with embedded(settings) as app:
        await app.start()
        return await _finish_all(app.backend, stop, on_change)


async def _cancel_when_set(stop: asyncio.Event, backend: Backend, operation_id: str) -> None:
    await stop.wait()
    try:
        await backend.cancel(operation_id, "interrupted by the user")
    except KtrdrError as error:
        raise StoreError(
            f"{operation_id} was stopped, but its cancellation cannot be recorded. {error}",
            fix=f"It goes on with the next training, unless you cancel it: ktrdr ops cancel {operation_id}",
        ) from error


async def _finish_all(
    backend: Backend, stop: asyncio.Event, on_change: Callable[[OperationRecord], None]
) -> int:
    finished = 0
    stopped = asyncio.create_task(stop.wait())
    try:
        while (operation_id := await backend.next_unfinished()) is not None and not stop.is_set():
            watching = asyncio.create_task(_watch(backend, operation_id, on_change))
            await asyncio.wait({watching, stopped}, return_when=asyncio.FIRST_COMPLETED)
            if not watching.done():
                watching.cancel()
                await asyncio.gather(watching, return_exceptions=True)
                break
            await watching
            finished += 1
    finally:
        stopped.cancel()
    return finished


async def _watch(
    backend: Backend, operation_id: str, on_change: Callable[[OperationRecord], None]
) -> OperationRecord:
    async for record in backend.watch(operation_id):
        on_change(record)
        if record.state.terminal:
            return record
    raise AssertionError("a watch ends with the end of its operation")
