"""What changes, as it changes: records of operations that this or any other process runs."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import replace
from types import TracebackType
from typing import Self

import structlog

from ktrdr.backend.records import OperationRecord
from ktrdr.backend.store import OperationStore
from ktrdr.backend.waiting import Offload
from ktrdr.clock import Clock, SystemClock
from ktrdr.errors import DatabaseUnavailableError, StorageFullError
from ktrdr.events import TrainingProgress

_log = structlog.get_logger()

POLL_S = 0.02
"""How often the database is asked whether anybody has committed; that takes some 5 µs, without a lock."""
_POLL_SERVER_S = 0.05
"""Likewise, where a server has to be asked."""
_PAUSE_S = 1.0
"""Before it is asked again, if it cannot be."""


class Feed:
    """Tells watchers of each change; one who is slow gets the newest and misses what was between.

    Use it as a context manager to follow what other processes do. The backend feeds its own with what it
    commits, which is quicker, and with progress that is not in the database yet.

    Args:
        store: where operations are read.
        clock: for the intervals.
        offload: where the database is asked.
        on_commit: called when anybody has committed anything, before watchers are told.
        poll_s: how often the database is asked.
    """

    def __init__(
        self,
        store: OperationStore,
        clock: Clock | None = None,
        *,
        offload: Offload = asyncio.to_thread,
        on_commit: Callable[[], Awaitable[None]] | None = None,
        poll_s: float = POLL_S,
    ) -> None:
        self._store = store
        self._clock = clock or SystemClock()
        self._offload = offload
        self._on_commit = on_commit
        self._poll_s = poll_s
        self._watchers: dict[str, set[_Watcher]] = {}
        self._known: dict[str, OperationRecord] = {}
        self._failure: BaseException | None = None
        self._polling: asyncio.Task[None] | None = None

    async def watch(self, operation_id: str) -> AsyncGenerator[OperationRecord, None]:
        """Yield the operation as it is, then each time it changes or gets on; ends after its end.

        Raises:
            OperationNotFoundError: there is none of that id.
        """
        watcher = _Watcher()
        watchers = self._watchers.setdefault(operation_id, set())
        watchers.add(watcher)
        try:
            self.changed(await self._read(operation_id))
            watcher.offer(self._known[operation_id])
            ended = False
            while not ended:
                record = await watcher.newest(lambda: self._failure)
                yield record
                ended = record.state.terminal
        finally:
            watchers.discard(watcher)
            if not watchers and self._watchers.get(operation_id) is watchers:
                del self._watchers[operation_id]
                self._known.pop(operation_id, None)

    def changed(self, record: OperationRecord) -> None:
        """Tell those who watch it, if this is news."""
        watchers = self._watchers.get(record.operation_id)
        if not watchers:
            return
        known = self._known.get(record.operation_id)
        record = record if known is None else _newest(known, record)
        if record != known:
            self._known[record.operation_id] = record
            for watcher in watchers:
                watcher.offer(record)

    def progressed(self, progress: TrainingProgress) -> None:
        """Tell those who watch the operation how far it is."""
        known = self._known.get(progress.operation_id)
        if known is not None:
            self.changed(replace(known, progress=progress))

    def fail(self, error: BaseException) -> None:
        """End every watch with an error: nothing will change any more."""
        self._failure = error
        for watchers in self._watchers.values():
            for watcher in watchers:
                watcher.wake()

    async def run(self) -> None:
        """Notice what other processes commit, for ever."""
        commits = self._store.watch_commits()
        poll_s = self._poll_s if commits.is_instant else max(self._poll_s, _POLL_SERVER_S)
        try:
            is_connected, has_changed = False, False
            while True:
                try:
                    # To connect may wait for others; to ask then does not, unless a server has to answer.
                    at_once = is_connected and commits.is_instant
                    news = commits.changed() if at_once else await self._offload(commits.changed)
                    is_connected = True
                    has_changed = has_changed or news
                    if has_changed:
                        if self._on_commit is not None:
                            await self._on_commit()
                        await self._read_watched()
                        has_changed = False
                except (DatabaseUnavailableError, StorageFullError) as error:
                    _log.warning("database cannot be watched", error=str(error))
                    await self._clock.sleep(_PAUSE_S)
                await self._clock.sleep(poll_s)
        finally:
            commits.close()

    async def _read_watched(self) -> None:
        watched = list(self._watchers)
        if watched:
            for record in await self._offload(lambda: self._store.get_all(watched)):
                self.changed(record)

    async def __aenter__(self) -> Self:
        self._polling = asyncio.create_task(self._poll())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._polling is not None
        self._polling.cancel()
        await asyncio.gather(self._polling, return_exceptions=True)

    async def _poll(self) -> None:
        try:
            await self.run()
        except Exception as error:
            self.fail(error)

    async def _read(self, operation_id: str) -> OperationRecord:
        return await self._offload(lambda: self._store.get(operation_id))


class _Watcher:
    """The newest record that one reader has not seen."""

    def __init__(self) -> None:
        self._record: OperationRecord | None = None
        self._changed = asyncio.Event()

    def offer(self, record: OperationRecord) -> None:
        self._record = record
        self._changed.set()

    def wake(self) -> None:
        self._changed.set()

    async def newest(self, failure: Callable[[], BaseException | None]) -> OperationRecord:
        while True:
            self._changed.clear()
            record, self._record = self._record, None
            if record is not None:
                return record
            if (error := failure()) is not None:
                raise error
            await self._changed.wait()


def _newest(known: OperationRecord, record: OperationRecord) -> OperationRecord:
    """Combine two readings, of which either may be the later: neither state nor progress goes back."""
    later = known if known.revision > record.revision else record
    progress = max(known.progress, record.progress, key=lambda it: _position(it, later.attempt))
    return later if progress is later.progress else replace(later, progress=progress)


def _position(progress: TrainingProgress | None, attempt: int) -> tuple[bool, int, int]:
    if progress is None:
        return False, 0, 0
    # Of the attempt that is being made before that of others: a later one may have been given up.
    return progress.attempt == attempt, progress.attempt, progress.sequence
