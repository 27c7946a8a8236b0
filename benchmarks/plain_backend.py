"""What our HTTP API is measured against: FastAPI and SQLAlchemy, and nothing else; a program of its own.

``python -m benchmarks.plain_backend DATABASE_URL``
"""

import asyncio
import json
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import uvicorn
from fastapi import FastAPI
from fastapi.responses import StreamingResponse
from pydantic import BaseModel
from sqlalchemy import JSON, Column, Integer, MetaData, String, Table, create_engine, event, insert

from benchmarks.http_backend import announce
from benchmarks.paced_runner import EVERY_S
from benchmarks.stamped_runner import MADE_AT

_metadata = MetaData()
_rows = Table(
    "plain_trainings",
    _metadata,
    Column("id", Integer, primary_key=True),
    Column("name", String(128)),
    Column("request", JSON),
)


class _Training(BaseModel):
    strategy_name: str
    seed: int | None = None
    execution_mode: str | None = None


class _Accepted(BaseModel):
    id: int


def _application(url: str) -> FastAPI:
    is_sqlite = url.startswith("sqlite")
    engine = create_engine(url.replace("postgresql://", "postgresql+psycopg://"))
    # SQLite has one writer: threads that wait here are woken at once, those that wait in it poll.
    turn = threading.Lock() if is_sqlite else None
    if is_sqlite:

        @event.listens_for(engine, "connect")
        def as_durable_as_ours(connection: Any, _: object) -> None:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")

    _metadata.create_all(engine)
    watchers: set[asyncio.Queue[bytes]] = set()

    async def tell() -> None:
        while True:
            await asyncio.sleep(EVERY_S)
            told = json.dumps({"progress": {"metrics": {MADE_AT: time.monotonic()}}})
            for watcher in watchers:
                watcher.put_nowait(f"event: operation\ndata: {told}\n\n".encode())

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        telling = asyncio.create_task(tell())
        yield
        telling.cancel()

    app = FastAPI(lifespan=lifespan)

    @contextmanager
    def in_turn() -> Iterator[None]:
        if turn is None:
            yield
            return
        with turn:
            yield

    @app.post("/rows", status_code=202)
    def add(training: _Training) -> _Accepted:
        values = {"name": training.strategy_name, "request": training.model_dump()}
        with in_turn(), engine.begin() as connection:
            inserted = connection.execute(insert(_rows).values(values)).inserted_primary_key
        assert inserted is not None
        return _Accepted(id=inserted[0])

    @app.get("/empty")
    async def empty() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/events")
    async def events() -> StreamingResponse:
        async def stream() -> AsyncIterator[bytes]:
            mine: asyncio.Queue[bytes] = asyncio.Queue()
            watchers.add(mine)
            try:
                while True:
                    yield await mine.get()
            finally:
                watchers.discard(mine)

        return StreamingResponse(stream(), media_type="text/event-stream")

    return app


class _Server(uvicorn.Server):
    async def startup(self, *args: Any, **options: Any) -> None:
        await super().startup(*args, **options)
        announce(f"http://127.0.0.1:{self.servers[0].sockets[0].getsockname()[1]}")


async def _serve(url: str) -> None:
    config = uvicorn.Config(_application(url), port=0, log_level="warning", access_log=False)
    await _Server(config).serve()


if __name__ == "__main__":
    asyncio.run(_serve(sys.argv[1]))
