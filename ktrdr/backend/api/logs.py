"""What agents have logged about an operation: in pages, and as Server-Sent Events.

::

    event: log          one line; each comes once, in order
    id: 4711            what a client that comes back sends as Last-Event-ID
    data: {…}

    event: end          the operation has ended, and nothing more comes; who comes back after it gets 204
    id: end
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from datetime import datetime
from http import HTTPStatus
from typing import Annotated, Literal

import structlog
from fastapi import APIRouter, Depends, Header, Query, Response
from pydantic import BaseModel, ConfigDict, Field
from starlette.concurrency import run_in_threadpool

from ktrdr.backend.api.access import Access
from ktrdr.backend.api.events import BEGINNING, END, END_EVENT, PING, PING_S, SseStream, sse_event
from ktrdr.backend.api.operations import OperationId, event_number
from ktrdr.backend.api.service import Service
from ktrdr.backend.log_reading import POLL_S, LogRecord, LogTail, read_log
from ktrdr.backend.waiting import wait_for
from ktrdr.clock import Clock, SystemClock
from ktrdr.errors import KtrdrError
from ktrdr.events.log_lines import LogLevel

_log = structlog.get_logger()


class LogLineView(BaseModel):
    """One line that an agent has logged about an operation."""

    model_config = ConfigDict(from_attributes=True)

    position: int = Field(description="Grows; what `after` and `Last-Event-ID` count by.")
    at: datetime
    attempt: int
    number: int = Field(description="Counts every line of the attempt, those too that are missing.")
    agent_id: str
    source: Literal["agent", "executor"] = Field(description="Who said it: the agent, or its runner.")
    level: LogLevel
    event: str = Field(description="What it says.", examples=["[2/8] Computing indicators"])
    fields: dict[str, bool | int | float | str | None] = Field(description="What it says besides.")
    left_out: int = Field(description="How many lines are missing before this one: there were too many.")


class LogPage(BaseModel):
    """Some of what is kept of the log of an operation."""

    success: Literal[True] = True
    data: list[LogLineView]
    next_after: int | None = Field(description="`after` of the next page; null if this is the last.")


def logs_router(service: Service, access: Access, closing: asyncio.Event) -> APIRouter:
    """Return the routes; streams end when ``closing`` is set."""
    router = APIRouter(prefix="/api/v1/operations", tags=["operations"])
    read = [Depends(access.reading())]
    clock = SystemClock()
    tails = _Tails(service, clock)

    @router.get("/{operation_id}/logs", dependencies=read, summary="Show what agents have logged about it")
    def logs(
        operation_id: OperationId,
        after: Annotated[int, Query(ge=0, lt=2**63, description="Only what came after this position.")] = 0,
        limit: Annotated[int, Query(ge=1, le=1000)] = 200,
        level: Annotated[LogLevel, Query(description="Only lines at least so severe.")] = "debug",
    ) -> LogPage:
        service.store.get(operation_id)
        found = read_log(service.store, operation_id, after=after, limit=limit + 1, level=level)
        page = found[:limit]
        return LogPage(
            data=[LogLineView.model_validate(line) for line in page],
            next_after=page[-1].position if len(found) > limit else None,
        )

    @router.get(
        "/{operation_id}/logs/stream",
        dependencies=read,
        summary="Follow what agents log about it as Server-Sent Events",
        status_code=HTTPStatus.OK,
        response_class=LogStream,
        responses={204: {"description": "It has ended, and the client has seen the end."}},
    )
    def stream(
        operation_id: OperationId,
        last_event_id: Annotated[str | None, Header(description="Go on behind this line.")] = None,
    ) -> Response:
        service.store.get(operation_id)
        if last_event_id == END:
            return Response(status_code=HTTPStatus.NO_CONTENT)
        return LogStream(tails, operation_id, event_number(last_event_id), closing=closing, clock=clock)

    return router


class LogStream(SseStream):
    """The log of an operation until its end.

    Args:
        tails: where it is read.
        operation_id: which one.
        after: the position of the last line that the client has.
        closing: when set, the stream ends; a client comes back then.
        clock: for the interval.
    """

    def __init__(
        self, tails: "_Tails", operation_id: str, after: int, *, closing: asyncio.Event, clock: Clock
    ) -> None:
        super().__init__(_events(tails, operation_id, after, closing, clock))


async def _events(
    tails: "_Tails", operation_id: str, after: int, closing: asyncio.Event, clock: Clock
) -> AsyncIterator[bytes]:
    yield BEGINNING
    quiet_s = 0.0
    with tails.of(operation_id) as tail:
        while not closing.is_set():
            try:
                lines, is_over = await tail.newer(after)
            except KtrdrError as error:
                _log.warning("log not followed", operation_id=operation_id, reason=str(error))
                return
            if lines:
                after, quiet_s = lines[-1].position, 0.0
                yield b"".join(map(_event_of, lines))
            if is_over:
                yield END_EVENT
                return
            if quiet_s >= PING_S:
                quiet_s = 0.0
                yield PING
            await wait_for(closing, clock, POLL_S)
            quiet_s += POLL_S


class _Tails:
    """The logs that are followed, each read once for all who do."""

    def __init__(self, service: Service, clock: Clock) -> None:
        self._service = service
        self._clock = clock
        self._tails: dict[str, LogTail] = {}
        self._readers: Counter[str] = Counter()

    @contextmanager
    def of(self, operation_id: str) -> Iterator[LogTail]:
        """Yield that of one operation; it is kept as long as anybody has it."""
        if operation_id not in self._tails:
            self._tails[operation_id] = LogTail(
                self._service.store, operation_id, clock=self._clock, offload=run_in_threadpool
            )
        self._readers[operation_id] += 1
        try:
            yield self._tails[operation_id]
        finally:
            self._readers[operation_id] -= 1
            if not self._readers[operation_id]:
                del self._tails[operation_id], self._readers[operation_id]


def _event_of(line: LogRecord) -> bytes:
    return sse_event("log", LogLineView.model_validate(line), str(line.position))
