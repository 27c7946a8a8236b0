"""Operations, models and agents as the database has them: what `ktrdr --server` shows as it shows its own.

::

    event: record       the operation as it is now; newest wins, and who comes back gets it again
    data: {…}

    event: end          it has ended, and nothing more comes
    id: end
"""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query
from fastapi.sse import format_sse_event
from pydantic import BaseModel, TypeAdapter

from ktrdr.backend.api.access import Access
from ktrdr.backend.api.events import BEGINNING, END_EVENT, PING, PING_S, SseStream, Tellings
from ktrdr.backend.api.limits import FewAtOnce
from ktrdr.backend.api.operations import NAME, OperationId
from ktrdr.backend.api.service import Service
from ktrdr.backend.looking import (
    Fleet,
    ListedOperation,
    RecordedStory,
    fleet_of,
    list_operations,
    story_of,
)
from ktrdr.backend.records import ModelRecord, OperationRecord
from ktrdr.backend.states import State
from ktrdr.models.directory import Finding, ModelDirectory

Limit = Annotated[int, Query(ge=1, le=1000)]
ModelName = Annotated[
    str,
    Path(
        max_length=400,
        description="`{strategy}/{version}`, `…_latest`, or the strategy alone: its newest.",
        examples=["eurusd_momentum"],
    ),
]
_RECORD = TypeAdapter(OperationRecord)


class OperationRecords(BaseModel):
    """Some operations."""

    operations: list[ListedOperation]


class ModelRecords(BaseModel):
    """Some models."""

    models: list[ModelRecord]


class Verification(BaseModel):
    """What differs in the files of a model from what was persisted."""

    name: str
    findings: list[Finding]


def records_router(service: Service, access: Access, tellings: Tellings, slow: FewAtOnce) -> APIRouter:
    """Return the routes; what is watched, is among ``tellings``, and what is compared, is so by ``slow``."""
    router = APIRouter(prefix="/api/v1/records", tags=["records"], dependencies=[Depends(access.reading())])
    store = service.store
    directory = ModelDirectory(service.settings.models_dir)

    @router.get("/operations", summary="List operations as they are recorded, newest first")
    def operations(
        state: State | None = None,
        strategy: Annotated[str | None, Query(pattern=NAME)] = None,
        limit: Limit = 20,
        before: Annotated[str | None, Query(max_length=64, description="The last id of a page.")] = None,
    ) -> OperationRecords:
        found = list_operations(store, state=state, strategy=strategy, limit=limit, before=before)
        return OperationRecords(operations=found)

    @router.get("/operations/{name}", summary="Find an operation, with its history")
    def operation(
        name: Annotated[
            str, Path(max_length=64, description="Its id, or the unique beginning or end of that.")
        ],
    ) -> RecordedStory:
        return story_of(store, name)

    @router.get(
        "/operations/{operation_id}/events",
        summary="Follow the record of an operation as Server-Sent Events",
        status_code=HTTPStatus.OK,
        response_class=RecordStream,
    )
    def events(operation_id: OperationId) -> RecordStream:
        store.get(operation_id)
        return RecordStream(tellings, operation_id)

    @router.get("/models", summary="List models as they are recorded, newest first")
    def models(
        strategy: Annotated[str | None, Query(pattern=NAME)] = None,
        limit: Limit = 20,
        before: Annotated[str | None, Query(max_length=400, description="The last name of a page.")] = None,
    ) -> ModelRecords:
        return ModelRecords(models=store.models.list_models(strategy=strategy, limit=limit, before=before))

    @router.get("/models/{name:path}", summary="Find a model")
    def model(name: ModelName) -> ModelRecord:
        return store.models.find(name)

    @router.get("/verifications/{name:path}", summary="Compare the files of a model with what was persisted")
    async def verification(name: ModelName) -> Verification:
        def compared() -> Verification:
            record = store.models.find(name)
            return Verification(name=record.name, findings=directory.verify(record.name, record.files))

        return await slow.run(compared)

    @router.get("/agents", summary="List every host agent that was heard of, and what each holds")
    def agents() -> Fleet:
        return fleet_of(store)

    return router


class RecordStream(SseStream):
    """The record of an operation each time that it changes, until its end."""

    def __init__(self, tellings: Tellings, operation_id: str) -> None:
        super().__init__(_events(tellings, operation_id))


async def _events(tellings: Tellings, operation_id: str) -> AsyncGenerator[bytes, None]:
    yield BEGINNING
    async with tellings.of(operation_id) as telling, aclosing(telling.records(PING_S)) as records:
        async for record in records:
            if record is None:
                yield PING
                continue
            told = format_sse_event(data_str=_RECORD.dump_json(record).decode(), event="record")
            yield told + END_EVENT if record.state.terminal else told
