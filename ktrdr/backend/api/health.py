"""Whether the backend is there."""

from fastapi import APIRouter

router = APIRouter(prefix="/health", tags=["health"])


@router.get("/live")
async def live() -> dict[str, str]:
    """Answer, which is all that it says: this process runs and its event loop turns."""
    return {"status": "ok"}
