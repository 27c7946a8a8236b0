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
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing

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

END = "end"
"""The id of the last event."""
_PING_S = 15.0
_PING = format_sse_event(data_str=None, comment="still there")
_RETRY_MS = 1000

_log = structlog.get_logger()


class EventStream(StreamingResponse):
    """Everything that happens to an operation, until its end.

    Args:
        service: where it is watched.
        operation_id: which one.
        after: the number of the last entry of its history that the client has.
        closing: when set, the stream ends; a client comes back then.
        ping_s: how often something is sent while nothing happens, so that proxies do not take it for dead.
    """

    media_type = "text/event-stream"

    def __init__(
        self,
        service: Service,
        operation_id: str,
        after: int,
        *,
        closing: asyncio.Event,
        ping_s: float = _PING_S,
    ) -> None:
        self._service = service
        self._operation_id = operation_id
        self._after = after
        self._closing = closing
        self._ping_s = ping_s
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        super().__init__(self._content(), headers=headers)

    async def _content(self) -> AsyncIterator[bytes]:
        yield format_sse_event(data_str=None, retry=_RETRY_MS)
        revision = -1
        async with aclosing(self._changes()) as changes:
            async for record in changes:
                if record is None:
                    yield _PING
                    continue
                # Progress alone adds nothing to the history.
                if record.revision != revision:
                    revision = record.revision
                    for event in await self._news():
                        yield event
                yield _event("operation", detail(record))
                if record.state.terminal:
                    yield format_sse_event(data_str="{}", event=END, id=END)

    async def _news(self) -> list[bytes]:
        """Return what was added to the history since it was last asked for."""
        entries = await run_in_threadpool(history_after, self._service.store, self._operation_id, self._after)
        if entries:
            self._after = entries[-1].number
        return [_event("history", history_view(entry), str(entry.number)) for entry in entries]

    async def _changes(self) -> AsyncGenerator[OperationRecord | None, None]:
        """Yield the operation whenever it has changed, and None when it has not for a while."""
        closing = asyncio.create_task(self._closing.wait())
        coming: asyncio.Task[OperationRecord] | None = None
        async with aclosing(self._service.operations.watch(self._operation_id)) as records:
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
                        _log.warning("watch ended", operation=self._operation_id, reason=str(error))
                        return
                    coming = None
                    yield record
            finally:
                closing.cancel()
                if coming is not None:
                    coming.cancel()
                    # The generator must not be closed while it still runs.
                    await asyncio.wait((coming,))


def _event(name: str, data: BaseModel, event_id: str | None = None) -> bytes:
    return format_sse_event(data_str=data.model_dump_json(), event=name, id=event_id)
