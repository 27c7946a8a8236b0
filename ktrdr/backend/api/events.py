"""An operation as it happens, as Server-Sent Events.

::

    event: history      one entry of the history; each comes once, in order
    id: 17              what a client that comes back sends as Last-Event-ID
    data: {…}

    event: operation    the operation as it is now: state, progress, metrics of the last epoch
    data: {…}           newest wins; has no id, as it is sent anyway to who comes back

    event: end          it has ended, and nothing more comes; who comes back after it gets 204
    id: end

A client that reads slowly misses states of progress and no history: nothing is kept for it but the newest.
One that does not read at all is cut off by the server after 30 s.
"""

import asyncio
from bisect import bisect_right
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager

import structlog
from fastapi.responses import StreamingResponse
from fastapi.sse import format_sse_event
from pydantic import BaseModel
from starlette.concurrency import run_in_threadpool

from ktrdr.backend.api.service import Service
from ktrdr.backend.api.views import detail, history_view
from ktrdr.backend.listing import history_after
from ktrdr.backend.records import OperationRecord
from ktrdr.errors import KtrdrError
from ktrdr.logs.binding import context_of_no_operation

END = "end"
"""The id of the last event."""
PING_S = 15.0
PING = format_sse_event(data_str=None, comment="still there")
END_EVENT = format_sse_event(data_str="{}", event=END, id=END)
BEGINNING = format_sse_event(data_str=None, retry=1000)
"""Comes first: after how many milliseconds who was cut off may come back."""

_TOLD_AT_ONCE = 16
"""Watchers, before anything else has its turn: to tell one takes some 60 µs of the event loop."""

_log = structlog.get_logger()


class Tellings:
    """What there is to tell of the operations that are watched: followed once for all their watchers.

    Args:
        service: where they are watched.
        closing: when set, every watch ends; a client comes back then.
    """

    def __init__(self, service: Service, closing: asyncio.Event) -> None:
        self._service = service
        self._closing = closing
        self._told: dict[str, _Telling] = {}

    @asynccontextmanager
    async def of(self, operation_id: str) -> AsyncIterator["_Telling"]:
        """Yield that of one operation; it is followed as long as anybody has it."""
        telling = self._told.get(operation_id)
        if telling is None or telling.is_over:
            telling = self._told[operation_id] = _Telling(self._service, operation_id, self._closing)
        telling.watchers += 1
        try:
            yield telling
        finally:
            telling.watchers -= 1
            if telling.watchers == 0:
                if self._told.get(operation_id) is telling:
                    del self._told[operation_id]
                await telling.stop()


class _Telling:
    """One operation as it happens."""

    def __init__(self, service: Service, operation_id: str, closing: asyncio.Event) -> None:
        self.watchers = 0
        self.is_over = False
        """Whether nothing comes after it."""
        self._newest: OperationRecord | None = None
        self._service = service
        self._operation_id = operation_id
        self._reading = asyncio.Lock()
        self._revision = -1
        self._numbers: list[int] = []
        self._history: list[bytes] = []
        self._shown: OperationRecord | None = None
        self._state = b""
        self._waiting: dict[asyncio.Future[None], None] = {}  # a set that keeps its order
        context = context_of_no_operation()
        self._following = asyncio.create_task(self._follow(), context=context)
        self._closing = asyncio.create_task(self._close(closing), context=context)

    async def stop(self) -> None:
        """Follow it no more."""
        for task in (self._following, self._closing):
            task.cancel()
        await asyncio.wait((self._following, self._closing))

    async def records(self, ping_s: float) -> AsyncGenerator[OperationRecord | None, None]:
        """Yield the operation as it is, then each time that it changes, until its end or that of the watch.

        Who is slow gets the newest and misses what was between. None: nothing has happened for ``ping_s``.
        """
        seen = None
        while seen is None or not seen.state.terminal:
            if self._newest is not seen:
                seen = self._newest
                yield seen
            elif self.is_over:
                return
            else:
                try:
                    async with asyncio.timeout(ping_s):
                        await self._news()
                except TimeoutError:
                    yield None

    async def history(self, revision: int, after: int) -> tuple[list[bytes], int]:
        """Return what has happened since an entry, and the number of the last, as of a revision or later."""
        async with self._reading:
            if revision > self._revision:
                last = self._numbers[-1] if self._numbers else 0
                store = self._service.store
                for entry in await run_in_threadpool(history_after, store, self._operation_id, last):
                    self._numbers.append(entry.number)
                    self._history.append(sse_event("history", history_view(entry), str(entry.number)))
                self._revision = revision
        first = bisect_right(self._numbers, after)
        return self._history[first:], self._numbers[-1] if first < len(self._numbers) else after

    def state(self, record: OperationRecord) -> bytes:
        """Return a record as an event, which is made once for all who are told of it meanwhile."""
        if record is not self._shown:
            self._shown, self._state = record, sse_event("operation", detail(record))
        return self._state

    async def _follow(self) -> None:
        try:
            async with aclosing(self._service.operations.watch(self._operation_id)) as records:
                async for record in records:
                    self._newest = record
                    await self._tell()
        except KtrdrError as error:
            _log.warning("watch ended", operation_id=self._operation_id, reason=str(error))
        finally:
            self._end()

    async def _close(self, closing: asyncio.Event) -> None:
        await closing.wait()
        self._end()

    def _end(self) -> None:
        self.is_over = True
        _wake(list(self._waiting))

    async def _tell(self) -> None:
        # Those that come, or come back, while others are being told, know of it already.
        waiting = list(self._waiting)
        for first in range(0, len(waiting), _TOLD_AT_ONCE):
            _wake(waiting[first : first + _TOLD_AT_ONCE])
            await asyncio.sleep(0)

    async def _news(self) -> None:
        news = asyncio.get_running_loop().create_future()
        self._waiting[news] = None
        try:
            await news
        finally:
            del self._waiting[news]


def _wake(waiting: list[asyncio.Future[None]]) -> None:
    for news in waiting:
        if not news.done():
            news.set_result(None)


class SseStream(StreamingResponse):
    """Server-Sent Events, which neither browsers nor proxies keep."""

    media_type = "text/event-stream"

    def __init__(self, events: AsyncIterator[bytes]) -> None:
        super().__init__(events, headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})


class EventStream(SseStream):
    """Everything that happens to an operation, until its end.

    Args:
        tellings: where it is watched.
        operation_id: which one.
        after: the number of the last entry of its history that the client has.
        ping_s: how often something is sent while nothing happens, so that proxies do not take it for dead.
    """

    def __init__(self, tellings: Tellings, operation_id: str, after: int, *, ping_s: float = PING_S) -> None:
        super().__init__(_events(tellings, operation_id, after, ping_s))


async def _events(
    tellings: Tellings, operation_id: str, after: int, ping_s: float
) -> AsyncGenerator[bytes, None]:
    yield BEGINNING
    revision = None
    async with tellings.of(operation_id) as telling, aclosing(telling.records(ping_s)) as records:
        async for record in records:
            if record is None:
                yield PING
                continue
            history: list[bytes] = []
            # Progress alone adds nothing to the history.
            if record.revision != revision:
                history, after = await telling.history(record.revision, after)
                revision = record.revision
            end = [END_EVENT] if record.state.terminal else []
            yield b"".join([*history, telling.state(record), *end])


def sse_event(name: str, data: BaseModel, event_id: str | None = None) -> bytes:
    """Return one event of a stream."""
    return format_sse_event(data_str=data.model_dump_json(), event=name, id=event_id)
