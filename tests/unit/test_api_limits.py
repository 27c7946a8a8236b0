"""How much clients may send, each and together."""

import asyncio
from collections.abc import AsyncIterator

import httpx
from fastapi import FastAPI, Request

from ktrdr.backend.api.limits import BodyLimit
from ktrdr.backend.api.problems import answer_problems


def echoing() -> FastAPI:
    """An application that answers how many bytes have come; all together may bring 100."""
    app = FastAPI()
    app.add_middleware(BodyLimit, limit_bytes=80, together_bytes=100, except_below="/none")
    answer_problems(app)

    @app.post("/")
    async def size(request: Request) -> int:
        return len(await request.body())

    return app


async def test_bodies_that_are_being_sent_take_no_more_memory_together_than_they_may() -> None:
    halfway, go_on = asyncio.Event(), asyncio.Event()

    async def slowly() -> AsyncIterator[bytes]:
        yield b"x" * 60
        halfway.set()
        await go_on.wait()
        yield b"x" * 20

    transport = httpx.ASGITransport(echoing())
    async with httpx.AsyncClient(transport=transport, base_url="http://here") as client:
        slow = asyncio.create_task(client.post("/", content=slowly()))
        await halfway.wait()
        refused = await client.post("/", content=b"y" * 60)
        assert (refused.status_code, refused.json()["code"]) == (503, "too-much-at-once")
        assert int(refused.headers["retry-after"]) > 0
        assert (await client.post("/", content=b"y" * 20)).json() == 20
        go_on.set()
        assert (await slow).json() == 80
        # What was answered is in nobody's way, whether it was taken or refused.
        for _ in range(3):
            assert (await client.post("/", content=b"y" * 80)).json() == 80
            assert (await client.post("/", content=b"y" * 81)).json()["code"] == "body-too-large"
