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
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import aclosing, contextmanager

import structlog
from fastapi.responses import StreamingResponse
from fastapi.sse import format_sse_event
from pydantic import BaseModel
from starlette.concurrency import run_in_threadpool

from ktrdr.backend.api.service import Service
from ktrdr.backend.api.views import detail, history_view
from ktrdr.backend.listing import history_after
from ktrdr.backend.records import OperationRecord
from ktrdr.backend.store import OperationStore
from ktrdr.errors import KtrdrError

END = "end"
"""The id of the last event."""
PING_S = 15.0
PING = format_sse_event(data_str=None, comment="still there")
END_EVENT = format_sse_event(data_str="{}", event=END, id=END)
RETRY_MS = 1000

_log = structlog.get_logger()


class Tellings:
    """What there is to tell of the operations that are watched, read once for all their watchers."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self._told: dict[str, _Telling] = {}

    @contextmanager
    def of(self, operation_id: str) -> Iterator["_Telling"]:
        """Yield that of one operation; it is kept as long as anybody has it."""
        telling = self._told.setdefault(operation_id, _Telling(self.service.store, operation_id))
        telling.watchers += 1
        try:
            yield telling
        finally:
            telling.watchers -= 1
            if telling.watchers == 0:
                del self._told[operation_id]


class _Telling:
    def __init__(self, store: OperationStore, operation_id: str) -> None:
        self.watchers = 0
        self._store = store
        self._operation_id = operation_id
        self._reading = asyncio.Lock()
        self._revision = -1
        self._numbers: list[int] = []
        self._history: list[bytes] = []
        self._record: OperationRecord | None = None
        self._state = b""

    async def history(self, revision: int, after: int) -> tuple[list[bytes], int]:
        """Return what has happened since an entry, and the number of the last, as of a revision or later."""
        async with self._reading:
            if revision > self._revision:
                last = self._numbers[-1] if self._numbers else 0
                for entry in await run_in_threadpool(history_after, self._store, self._operation_id, last):
                    self._numbers.append(entry.number)
                    self._history.append(sse_event("history", history_view(entry), str(entry.number)))
                self._revision = revision
        first = bisect_right(self._numbers, after)
        return self._history[first:], self._numbers[-1] if first < len(self._numbers) else after

    def state(self, record: OperationRecord) -> bytes:
        """Return the operation as it is."""
        if record is not self._record:
            self._record, self._state = record, sse_event("operation", detail(record))
        return self._state


class EventStream(StreamingResponse):
    """Everything that happens to an operation, until its end.

    Args:
        tellings: where it is watched.
        operation_id: which one.
        after: the number of the last entry of its history that the client has.
        closing: when set, the stream ends; a client comes back then.
        ping_s: how often something is sent while nothing happens, so that proxies do not take it for dead.
    """

    media_type = "text/event-stream"

    def __init__(
        self,
        tellings: Tellings,
        operation_id: str,
        after: int,
        *,
        closing: asyncio.Event,
        ping_s: float = PING_S,
    ) -> None:
        self._tellings = tellings
        self._operation_id = operation_id
        self._after = after
        self._closing = closing
        self._ping_s = ping_s
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        super().__init__(self._content(), headers=headers)

    async def _content(self) -> AsyncIterator[bytes]:
        yield format_sse_event(data_str=None, retry=RETRY_MS)
        revision = -1
        with self._tellings.of(self._operation_id) as telling:
            async with aclosing(self._changes()) as changes:
                async for record in changes:
                    if record is None:
                        yield PING
                        continue
                    events: list[bytes] = []
                    # Progress alone adds nothing to the history.
                    if record.revision != revision:
                        revision = record.revision
                        events, self._after = await telling.history(revision, self._after)
                    end = [END_EVENT] if record.state.terminal else []
                    yield b"".join([*events, telling.state(record), *end])

    async def _changes(self) -> AsyncGenerator[OperationRecord | None, None]:
        """Yield the operation whenever it has changed, and None when it has not for a while."""
        closing = asyncio.create_task(self._closing.wait())
        coming: asyncio.Task[OperationRecord] | None = None
        async with aclosing(self._tellings.service.operations.watch(self._operation_id)) as records:
            try:
                while True:
                    coming = coming or asyncio.create_task(anext(records))
                    await asyncio.wait(
                        (coming, closing), timeout=self._ping_s, return_when=asyncio.FIRST_COMPLETED
                    )
                    if closing.done():
                        return
                    if not coming.done():
                        yield None
                        continue
                    try:
                        record = coming.result()
                    except StopAsyncIteration:
                        return
                    except KtrdrError as error:
                        _log.warning("watch ended", operation_id=self._operation_id, reason=str(error))
                        return
                    coming = None
                    yield record
            finally:
                closing.cancel()
                if coming is not None:
                    coming.cancel()
                    # The generator must not be closed while it still runs.
                    await asyncio.wait((coming,))


def sse_event(name: str, data: BaseModel, event_id: str | None = None) -> bytes:
    """Return one event of a stream."""
    return format_sse_event(data_str=data.model_dump_json(), event=name, id=event_id)
