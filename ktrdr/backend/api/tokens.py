"""Tokens made, listed and revoked by admins, whose role includes every other: none lets anybody do more."""

from datetime import datetime, timedelta
from http import HTTPStatus
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from ktrdr.backend.api.access import Access
from ktrdr.backend.api.auditing import was_written_down, witness_of
from ktrdr.backend.api.service import Service
from ktrdr.backend.tokens import AccessTokens, Role, without_secret

_Name = Annotated[str, Field(pattern=r"^[^\x00-\x1f\x7f]{1,100}$")]


class CreateToken(BaseModel):
    """Whom a token is for, and what it lets them do."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"name": "grafana", "role": "viewer", "days": 365}]}
    )

    name: _Name = Field(description="Whom or what it is for, as the audit log names them.")
    role: Role = Role.VIEWER
    days: int | None = Field(None, ge=1, le=36500, description="It lets nobody in after that.")


class RevokeToken(BaseModel):
    """Which token is to end."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"token": "grafana"}]})

    token: _Name = Field(description="Its id, its name if no other has it, or itself.")


class TokenView(BaseModel):
    """What is known of a token; not the token itself."""

    model_config = ConfigDict(from_attributes=True)

    token_id: str
    name: str
    role: Role
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None


class TokenCreated(BaseModel):
    """A token that was just made."""

    success: Literal[True] = True
    record: TokenView
    secret: str = Field(description="What a client shows. It is told this once: only its hash is kept.")


class TokenRevoked(BaseModel):
    """A token that lets nobody in any more."""

    success: Literal[True] = True
    before: TokenView = Field(description="As it was: with `revoked_at` if it was revoked already.")


class TokenList(BaseModel):
    """The tokens, oldest first."""

    success: Literal[True] = True
    tokens: list[TokenView]


def tokens_router(service: Service, access: Access) -> APIRouter:
    """Return the routes."""
    router = APIRouter(prefix="/api/v1/tokens", tags=["installation"])
    tokens = AccessTokens(service.store)
    writing = [Depends(access.writing(Role.ADMIN))]

    @router.get("", dependencies=[Depends(access.reading(Role.ADMIN))], summary="List the tokens")
    def list_tokens() -> TokenList:
        return TokenList(tokens=[TokenView.model_validate(token) for token in tokens.list()])

    @router.post("", status_code=HTTPStatus.CREATED, dependencies=writing, summary="Make a token")
    def create(request: Request, response: Response, wish: CreateToken) -> TokenCreated:
        request.state.subject = f"{wish.name}, {wish.role}"
        expires_at = service.store.now() + timedelta(days=wish.days) if wish.days is not None else None
        made = tokens.create(wish.name, wish.role, expires_at=expires_at, witness=witness_of(request))
        was_written_down(request)
        response.headers["Cache-Control"] = "no-store"
        return TokenCreated(record=TokenView.model_validate(made.record), secret=made.secret)

    @router.post("/revoke", dependencies=writing, summary="End a token: the next request with it is refused")
    def revoke(request: Request, wish: RevokeToken) -> TokenRevoked:
        request.state.subject = without_secret(wish.token)
        before = tokens.revoke(wish.token, witness=witness_of(request))
        if before.revoked_at is None:
            was_written_down(request)
        return TokenRevoked(before=TokenView.model_validate(before))

    return router
