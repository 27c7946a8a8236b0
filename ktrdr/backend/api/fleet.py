"""The host agents, and the audit log."""

from datetime import datetime
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Query
from pydantic import BaseModel, ConfigDict, Field

from ktrdr.backend.api.access import Access
from ktrdr.backend.api.service import Service
from ktrdr.backend.audit import audit_entries
from ktrdr.backend.tokens import Role


class _View(BaseModel):
    model_config = ConfigDict(from_attributes=True)


class RunningView(_View):
    """One attempt that an agent holds."""

    operation_id: str
    attempt: int
    claim_id: str
    detached: bool = Field(description="Whether it cannot renew its lease, and trains on.")


class AgentView(_View):
    """One host agent, as it was last heard of."""

    agent_id: str
    host: str
    status: Literal["ready", "busy", "draining", "stopped", "detached", "silent"]
    device: str
    device_name: str
    memory_bytes: int
    lanes: list[str]
    slots_total: int
    slots_busy: int
    protocol_version: int
    first_seen: datetime
    started_at: datetime
    last_seen: datetime
    stopped_at: datetime | None
    running: list[RunningView]


class AgentList(BaseModel):
    """The host agents."""

    success: Literal[True] = True
    agents: list[AgentView]


class AuditView(_View):
    """One write by way of this API, or one change of its tokens."""

    number: int
    at: datetime
    who: str
    action: str
    subject: str
    status: int | None
    outcome: str


class AuditPage(BaseModel):
    """Some of the audit log."""

    success: Literal[True] = True
    entries: list[AuditView]
    next_before: int | None = Field(description="`before` of the next page; null if this is the last.")


def fleet_router(service: Service, access: Access) -> APIRouter:
    """Return the routes."""
    router = APIRouter(prefix="/api/v1", tags=["installation"])

    @router.get("/agents", dependencies=[Depends(access.reading())], summary="List the host agents")
    def list_agents(
        everyone: Annotated[
            bool, Query(alias="all", description="Also those that have stopped or fell silent.")
        ] = False,
    ) -> AgentList:
        known = service.store.agents()
        shown = [agent for agent in known if everyone or agent.status.can_be_reached]
        return AgentList(agents=[AgentView.model_validate(agent) for agent in shown])

    @router.get("/audit", dependencies=[Depends(access.reading(Role.ADMIN))], summary="Who has changed what")
    def audit(
        limit: Annotated[int, Query(ge=1, le=1000)] = 50,
        before: Annotated[int | None, Query(ge=0, lt=2**63)] = None,
    ) -> AuditPage:
        found = audit_entries(service.store, limit=limit + 1, before=before)
        page = found[:limit]
        return AuditPage(
            entries=[AuditView.model_validate(entry) for entry in page],
            next_before=page[-1].number if len(found) > limit else None,
        )

    return router
