"""`TrainingPublisher` and `ModelConsumer`: for programs that have host agents train, and use the models.

::

    async with TrainingPublisher() as publisher, ModelConsumer() as consumer:
        operation_id = await publisher.publish("eurusd_momentum", seed=7)
        version = await consumer.model(operation_id)

Both work on the operations database that the settings name, and need no connection to the broker:
`ktrdr serve`, on the same database, carries requests there and persists the models that come back.
"""

import asyncio
import itertools
import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from pydantic import JsonValue

from ktrdr.api import ModelVersion, version_of
from ktrdr.app.submitting import submit_to_hosts
from ktrdr.backend.records import ModelRecord, OperationRecord
from ktrdr.backend.store import OperationStore
from ktrdr.backend.watching import POLL_S, Feed
from ktrdr.backend.wishes import TrainingWish
from ktrdr.clock import SystemClock
from ktrdr.settings import Settings, load_settings

if TYPE_CHECKING:
    from ktrdr.market.time_range import Moment


class _OnDatabase:
    """Opens the operations database as a context manager, plain or asynchronous."""

    def __init__(self, settings: Settings | None = None) -> None:
        self._settings = settings or load_settings()
        self._opened: OperationStore | None = None

    @property
    def _store(self) -> OperationStore:
        if self._opened is None:
            raise RuntimeError(f"{type(self).__name__} is used outside of its 'with' or 'async with' block")
        return self._opened

    def __enter__(self) -> Self:
        self._opened = OperationStore.open(self._settings)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._store.close()
        self._opened = None

    async def __aenter__(self) -> Self:
        return await asyncio.to_thread(self.__enter__)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.__exit__(kind, error, traceback)


class TrainingPublisher(_OnDatabase):
    """Publishes trainings for host agents; each ends in exactly one of a model, a failure, a cancellation.

    Use it as a context manager, plain or asynchronous.

    Args:
        settings: database, bars, strategies and blob store; default: the environment's ``KTRDR_…``.

    Raises:
        DatabaseUnavailableError: on entering: the database cannot be used.
    """

    async def publish(
        self,
        strategy: str | Path,
        *,
        seed: int | None = None,
        start: "Moment" = None,
        end: "Moment" = None,
        overrides: Mapping[str, JsonValue] | None = None,
        lane: str = "any",
        require_gpu: bool = False,
    ) -> str:
        """Publish a training and return its operation id; see `publish_sync`."""
        return await asyncio.to_thread(
            lambda: self.publish_sync(
                strategy,
                seed=seed,
                start=start,
                end=end,
                overrides=overrides,
                lane=lane,
                require_gpu=require_gpu,
            )
        )

    def publish_sync(
        self,
        strategy: str | Path,
        *,
        seed: int | None = None,
        start: "Moment" = None,
        end: "Moment" = None,
        overrides: Mapping[str, JsonValue] | None = None,
        lane: str = "any",
        require_gpu: bool = False,
    ) -> str:
        """Publish a training and return its operation id.

        Delivery: once this returns, the request is durable and is carried out, whatever crashes; while no
        `ktrdr serve` or no agent runs, it waits. Calling it twice makes two operations.

        Args:
            strategy: a YAML file, or a name in the strategies directory.
            seed: the same seed gives the same weights; None: a random one, which is recorded.
            start: first bar: a date, a time (UTC if it has no zone), or either as ISO 8601 text.
            end: last bar, likewise; a date includes its day.
            overrides: dotted path → value, as in ``{"training.epochs": 5}``.
            lane: only agents that serve it take the request.
            require_gpu: only agents with a GPU take the request.

        Raises:
            StrategyError: the strategy is wrong; lists every problem with its line.
            DataError: the bars are missing or wrong.
            BlobError: the bars cannot be stored where agents find them.
            DatabaseUnavailableError: the database cannot be written; nothing was published.
        """
        wish = TrainingWish(
            strategy,
            start=start,
            end=end,
            overrides=dict(overrides or {}),
            seed=seed,
            lane=lane,
            require_gpu=require_gpu,
        )
        return submit_to_hosts(wish, self._settings, self._store).operation_id

    async def cancel(self, operation_id: str, reason: str = "on request") -> None:
        """Have an operation stopped; it never registers a model then. One that has ended stays as it is.

        Raises:
            OperationNotFoundError: there is none of that id.
        """
        await asyncio.to_thread(self.cancel_sync, operation_id, reason)

    def cancel_sync(self, operation_id: str, reason: str = "on request") -> None:
        """Have an operation stopped; see `cancel`."""
        self._store.cancel(operation_id, reason)


class ModelConsumer(_OnDatabase):
    """Waits for what becomes of published trainings.

    Use it as a context manager, plain or asynchronous. Any number of programs may wait for the same.

    Args:
        settings: database and models directory; default: the environment's ``KTRDR_…``.

    Raises:
        DatabaseUnavailableError: on entering: the database cannot be used.
    """

    async def model(self, operation_id: str, *, timeout_s: float | None = None) -> ModelVersion:
        """Return the model of an operation once it is persisted; see `model_sync`."""
        async with asyncio.timeout(timeout_s), aclosing(self.watch(operation_id)) as records:
            async for record in records:
                if record.state.terminal:
                    return version_of(record, self._settings)
        raise AssertionError("a watch ends with the end of its operation")

    def model_sync(self, operation_id: str, *, timeout_s: float | None = None) -> ModelVersion:
        """Return the model of an operation once it is persisted, also if that was long ago.

        Raises:
            OperationNotFoundError: there is none of that id.
            OperationFailedError: it failed; the message says why.
            OperationCancelledError: it was cancelled.
            TimeoutError: it has not ended in time; it goes on.
        """
        end = None if timeout_s is None else time.monotonic() + timeout_s
        commits = self._store.watch_commits()
        try:
            while True:
                if commits.changed():
                    record = self._store.get(operation_id)
                    if record.state.terminal:
                        return version_of(record, self._settings)
                if end is not None and time.monotonic() >= end:
                    raise TimeoutError(f"{operation_id} has not ended within {timeout_s:g} s")
                time.sleep(POLL_S)
        finally:
            commits.close()

    async def watch(self, operation_id: str) -> AsyncGenerator[OperationRecord, None]:
        """Yield an operation as it is, then each time it changes or gets on; ends after its end.

        Who is slow gets the newest and misses what was between.

        Raises:
            OperationNotFoundError: there is none of that id.
        """
        async with Feed(self._store, SystemClock()) as feed, aclosing(feed.watch(operation_id)) as records:
            async for record in records:
                yield record

    async def models(
        self, *, strategy: str | None = None, after: str | None = None
    ) -> AsyncGenerator[ModelVersion, None]:
        """Yield model versions as they are persisted, in that order; never ends.

        Delivery: each once, if a program that starts again names the last one that it has handled.

        Args:
            strategy: only of this one.
            after: the name of a version: what came after it is yielded first; None: only what is new.

        Raises:
            ModelNotFoundError: there is no version called ``after``.
        """
        if after is None:
            newest = await asyncio.to_thread(self._store.models.list_models, limit=1)
            after = newest[0].name if newest else None
        else:
            await asyncio.to_thread(self._store.models.list_models, limit=1, before=after)
        commits = self._store.watch_commits()
        try:
            while True:
                if await asyncio.to_thread(commits.changed):
                    for model in await asyncio.to_thread(self._since, after):
                        after = model.name
                        if strategy in (None, model.strategy):
                            record = await asyncio.to_thread(self._store.get, model.operation_id)
                            yield version_of(record, self._settings)
                await asyncio.sleep(POLL_S)
        finally:
            commits.close()

    def _since(self, name: str | None) -> list[ModelRecord]:
        newest_first = itertools.takewhile(lambda model: model.name != name, self._store.models.all_models())
        return list(newest_first)[::-1]
