"""Operations: listed, shown, watched, cancelled."""

from http import HTTPStatus
from typing import Annotated, Literal

from fastapi import APIRouter, Body, Depends, Header, Path, Query, Request, Response
from pydantic import BaseModel, Field

from ktrdr.backend.api.access import Access
from ktrdr.backend.api.auditing import was_written_down, witness_of
from ktrdr.backend.api.events import END, EventStream, Tellings
from ktrdr.backend.api.pages import from_cursor, to_cursor
from ktrdr.backend.api.problems import Problem
from ktrdr.backend.api.service import Service
from ktrdr.backend.api.views import (
    STATUS,
    OperationDetail,
    OperationStory,
    OperationSummary,
    Status,
    detail,
    story,
    summary,
)
from ktrdr.backend.cancelling import STOPPED
from ktrdr.backend.listing import (
    COUNTED_AT_MOST,
    Counts,
    Filter,
    Position,
    attempts_of,
    history_after,
    list_page,
)
from ktrdr.backend.states import State
from ktrdr.backend.tokens import Role

ACTIVE = tuple(state for state in State if not state.terminal)
NAME = r"^[A-Za-z0-9][A-Za-z0-9_.@+-]{0,127}$"
"""What strategies, symbols, versions and files are called."""
_NO_NUMBER = "Last-Event-ID is the `id` of an event that this stream has sent."

OperationId = Annotated[
    str,
    Path(
        pattern=r"^[A-Za-z0-9_.-]{1,64}$",
        description="The whole id.",
        examples=["op-20261124-034501-k3f9x2mq"],
    ),
]


class OperationPage(BaseModel):
    """Some operations."""

    success: Literal[True] = True
    data: list[OperationSummary]
    total_count: int = Field(description=f"Of all pages; {COUNTED_AT_MOST:,} also stands for more.")
    active_count: int = Field(description="Of those, how many have not ended; likewise.")
    next_cursor: str | None = Field(description="Of the next page; null if this is the last.")


class OperationAnswer(BaseModel):
    """One operation."""

    success: Literal[True] = True
    data: OperationDetail


class StoryAnswer(BaseModel):
    """One operation with everything that happened to it."""

    success: Literal[True] = True
    data: OperationStory


class Cancellation(BaseModel):
    """Why an operation is cancelled."""

    reason: str | None = Field(None, max_length=1000, examples=["wrong dates"])
    force: bool = Field(
        False, description="Changes nothing: a run that does not stop by itself is always ended."
    )


def operations_router(service: Service, access: Access, tellings: Tellings) -> APIRouter:
    """Return the routes; what is watched, is among ``tellings``."""
    router = APIRouter(prefix="/api/v1/operations", tags=["operations"])
    read, write = [Depends(access.reading())], [Depends(access.writing(Role.OPERATOR))]
    store, counts = service.store, Counts(service.store)

    @router.get("", dependencies=read, summary="List operations, newest first")
    def list_operations(
        status: Annotated[
            Literal[Status, "resuming"] | None, Query(description="As the former system has it.")
        ] = None,
        state: Annotated[State | None, Query(description="In more detail.")] = None,
        active_only: bool = False,
        operation_type: Annotated[str | None, Query(description="All are `training`.")] = None,
        strategy: Annotated[str | None, Query(pattern=NAME)] = None,
        sort: Literal["-created_at", "created_at"] = "-created_at",
        limit: Annotated[int, Query(ge=1, le=1000)] = 10,
        cursor: Annotated[str | None, Query(max_length=500, description="`next_cursor` of a page.")] = None,
        offset: Annotated[
            int, Query(ge=0, le=1_000_000, description="For former clients; `cursor` is quicker.")
        ] = 0,
    ) -> OperationPage:
        wanted = set(State)
        if status is not None:
            wanted &= {each for each, name in STATUS.items() if name == status}
        if state is not None:
            wanted &= {state}
        if active_only:
            wanted &= set(ACTIVE)
        if not wanted or operation_type not in (None, "training"):
            return OperationPage(data=[], total_count=0, active_count=0, next_cursor=None)
        # Every state is no condition, which the database need not check.
        chosen = Filter(sorted(wanted) if len(wanted) < len(State) else (), strategy)
        records = list_page(
            store,
            chosen,
            limit=limit + 1,
            after=from_cursor(cursor) if cursor is not None else None,
            offset=offset,
            oldest_first=sort == "created_at",
        )
        page, last = records[:limit], records[limit - 1] if len(records) > limit else None
        active = sorted(wanted & set(ACTIVE))
        return OperationPage(
            data=[summary(record) for record in page],
            total_count=counts.count(chosen),
            active_count=counts.count(Filter(active, strategy)) if active else 0,
            next_cursor=to_cursor(Position(last.created_at, last.operation_id)) if last is not None else None,
        )

    @router.get("/{operation_id}", dependencies=read, summary="Show an operation with its whole history")
    def show(operation_id: OperationId) -> StoryAnswer:
        record, request = store.get_request(operation_id)
        told = story(
            record,
            request,
            attempts=attempts_of(store, operation_id),
            history=history_after(store, operation_id),
            waits_for=store.why_waiting(record),
        )
        return StoryAnswer(data=told)

    @router.get(
        "/{operation_id}/events",
        dependencies=read,
        summary="Follow an operation as Server-Sent Events",
        status_code=HTTPStatus.OK,
        response_class=EventStream,
        responses={204: {"description": "It has ended, and the client has seen the end."}},
    )
    def events(
        operation_id: OperationId,
        last_event_id: Annotated[str | None, Header(description="Go on behind this event.")] = None,
    ) -> Response:
        store.get(operation_id)
        if last_event_id == END:
            return Response(status_code=HTTPStatus.NO_CONTENT)
        return EventStream(tellings, operation_id, event_number(last_event_id))

    async def cancel(
        request: Request, operation_id: OperationId, wish: Annotated[Cancellation | None, Body()] = None
    ) -> OperationAnswer:
        request.state.subject = operation_id
        reason = (wish.reason if wish is not None else None) or "on request"
        by = f"{reason} (by {request.state.principal})"
        record = await service.operations.cancel(operation_id, by, witness=witness_of(request))
        if record.state not in STOPPED:
            raise Problem(
                HTTPStatus.CONFLICT,
                "already-ended",
                f"Operation {operation_id} is {record.state} already: there is nothing to cancel.",
                fix=f"See how it ended: GET /api/v1/operations/{operation_id}",
            )
        was_written_down(request)
        return OperationAnswer(data=detail(record))

    router.post("/{operation_id}/cancel", dependencies=write, summary="Cancel an operation")(cancel)
    router.delete("/{operation_id}", dependencies=write, summary="Cancel an operation, as former clients do")(
        cancel
    )
    return router


def event_number(last_event_id: str | None) -> int:
    """Return what a client that comes back counts by; 0 if it does not come back."""
    if not last_event_id:
        return 0
    if not (last_event_id.isascii() and last_event_id.isdigit()) or len(last_event_id) > 18:
        raise Problem(
            HTTPStatus.BAD_REQUEST,
            "invalid-event-id",
            f"'{last_event_id[:40]}' is no event's id.",
            fix=_NO_NUMBER,
        )
    return int(last_event_id)
