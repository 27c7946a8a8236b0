"""What nobody needs any more: shown, or removed, for admins."""

from collections.abc import Sequence
from typing import Literal

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel, ConfigDict, Field

from ktrdr.backend.api.access import Access
from ktrdr.backend.api.service import Service
from ktrdr.backend.refuse import Refuse
from ktrdr.backend.tokens import Role


class CleaningAnswer(BaseModel):
    """What nobody needs any more, of each kind that there is."""

    model_config = ConfigDict(from_attributes=True)

    success: Literal[True] = True
    refuse: Sequence[Refuse]
    left_alone: Sequence[str] = Field(
        description="What could not be looked at, or must not be touched from here, and why."
    )


def cleaning_router(service: Service, access: Access) -> APIRouter:
    """Return the routes."""
    router = APIRouter(prefix="/api/v1/cleaning", tags=["installation"])
    reading, writing = [Depends(access.reading(Role.ADMIN))], [Depends(access.writing(Role.ADMIN))]

    @router.get("", dependencies=reading, summary="Show what nobody needs any more, and why")
    async def look() -> CleaningAnswer:
        """In the database, in the blob store, and in the directories of the server's machine."""
        return CleaningAnswer.model_validate(await service.clean(apply=False))

    @router.post("", dependencies=writing, summary="Remove what nobody needs any more")
    async def remove(request: Request) -> CleaningAnswer:
        """What runs goes on meanwhile. The server does most of this by itself, every hour."""
        found = await service.clean(apply=True)
        removed = ", ".join(f"{each.count} {each.what}" for each in found.refuse)
        request.state.subject = f"removed: {removed or 'nothing'}"
        return CleaningAnswer.model_validate(found)

    return router
