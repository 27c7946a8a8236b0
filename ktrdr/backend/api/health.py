"""Whether the backend is there, and whether it can work."""

from typing import Literal

from fastapi import APIRouter
from pydantic import BaseModel

from ktrdr.backend.api.service import Service


class Health(BaseModel):
    """Whether it is well; whoever asks an unwell one is answered by a problem."""

    status: Literal["ok"] = "ok"


def health_router(service: Service | None) -> APIRouter:
    """Return the routes, which ask for no token; without a service only that of a process."""
    router = APIRouter(prefix="/health", tags=["health"])

    @router.get("/live", summary="Whether this process runs")
    async def live() -> Health:
        return Health()

    if service is not None:
        store = service.store

        @router.get("/ready", summary="Whether requests can be served: the database answers")
        def ready() -> Health:
            store.agents()
            return Health()

    return router
