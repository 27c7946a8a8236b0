"""How much clients may send, each and together."""

import asyncio
import threading
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, Request

import ktrdr.strategy
from ktrdr.backend.api.limits import BodyLimit
from ktrdr.backend.api.problems import answer_problems
from ktrdr.backend.tokens import Role
from ktrdr.strategy import ParsedStrategy
from tests.unit.api_cases import Api
from tests.unit.backend_cases import PATIENCE_S


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


async def test_checks_that_take_long_keep_nobody_else_waiting(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As many as there are threads in the pool, and some more."""
    go_on, begun = threading.Event(), threading.Semaphore(0)
    parse = ktrdr.strategy.parse_strategy

    def take_long(*given: Any, **named: Any) -> ParsedStrategy:
        begun.release()
        go_on.wait()
        return parse(*given, **named)

    monkeypatch.setattr("ktrdr.strategy.parse_strategy", take_long)
    async with api.client(role=Role.VIEWER) as client, asyncio.timeout(PATIENCE_S):
        ask = [
            asyncio.create_task(
                client.post(f"/api/v1/strategies/{what}", json={"strategy_name": "eurusd_momentum"})
            )
            for what in ["validate", "explain"] * 30
        ]
        try:
            for _ in range(4):
                assert await asyncio.to_thread(begun.acquire, timeout=PATIENCE_S)
            for _ in range(3):
                assert (await client.get("/api/v1/operations")).status_code == 200
        finally:
            go_on.set()
        assert {answer.status_code for answer in await asyncio.gather(*ask)} == {200}
