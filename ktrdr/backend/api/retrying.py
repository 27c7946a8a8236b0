"""Operations that are asked for once more."""

from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Body, Depends, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from ktrdr.backend.api.access import Access
from ktrdr.backend.api.auditing import witness_of
from ktrdr.backend.api.operations import NAME, OperationId
from ktrdr.backend.api.service import Service
from ktrdr.backend.api.trainings import IdempotencyKey, TrainingAccepted, accepted_view, note_acceptance
from ktrdr.backend.tokens import Role
from ktrdr.backend.wishes import RetryWish
from ktrdr.training.execution_mode_selector import Mode


class Retry(BaseModel):
    """What differs from the operation that is repeated; what is left out is as it was."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"execution_mode": "local"}]})

    execution_mode: Mode | None = None
    require_gpu: bool | None = None
    lane: str | None = Field(None, pattern=NAME)
    seed: int | None = Field(None, ge=0, lt=2**63, description="Same seed, same weights.")


def retrying_router(service: Service, access: Access) -> APIRouter:
    """Return the routes."""
    router = APIRouter(prefix="/api/v1/operations", tags=["operations"])

    @router.post(
        "/{operation_id}/retry",
        status_code=HTTPStatus.ACCEPTED,
        dependencies=[Depends(access.writing(Role.OPERATOR))],
        summary="Ask once more for what has failed or was cancelled",
    )
    async def retry(
        request: Request,
        response: Response,
        operation_id: OperationId,
        wish: Annotated[Retry | None, Body()] = None,
        idempotency_key: IdempotencyKey = None,
    ) -> TrainingAccepted:
        """A new operation, with the strategy, the bars and the seed that were recorded with the old one."""
        request.state.subject = operation_id
        wish = wish or Retry()
        accepted = await service.trainings.retry(
            operation_id,
            RetryWish(wish.execution_mode, wish.require_gpu, wish.lane, wish.seed),
            idempotency_key=idempotency_key,
            witness=witness_of(request),
        )
        note_acceptance(request, accepted)
        response.headers["Location"] = f"/api/v1/operations/{accepted.operation.operation_id}"
        return accepted_view(accepted)

    return router
