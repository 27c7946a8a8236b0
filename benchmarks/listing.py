"""Pages of a list of operations when there are a million, against the same when there are a thousand."""

import asyncio
import statistics
import time
from datetime import UTC, datetime, timedelta

import httpx
from sqlalchemy import create_engine, text

from benchmarks.broker import Processes
from benchmarks.databases import ENGINES, SQLITE, empty_database
from benchmarks.http_backend import HttpBackend, http_backend
from benchmarks.measure import Result
from ktrdr.backend.api.pages import to_cursor
from ktrdr.backend.instances import BROKER_OWNER
from ktrdr.backend.listing import Position

_FEW = 1_000
_MANY = 1_000_000
_ROUNDS = 60
_LIMIT = 10
"""So many of each kind there are also among the few."""
_BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
_FLAT = 1.5
"""Times as long as with few is still called flat: trees of indexes grow, and caches do not."""

# Each a second after the one before; one in a hundred waits for hosts, one in fifty is of another strategy.
_FILL = """
INSERT INTO operations (id, state, revision, attempt, max_attempts, strategy, symbol, timeframe, seed,
                        request, submitted_by, owner, created_at, updated_at, finished_at)
WITH RECURSIVE numbers(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < :count)
SELECT 'op-' || n, CASE WHEN n % 100 = 0 THEN 'pending' ELSE 'completed' END, 3, 1, 3,
       CASE WHEN n % 50 = 0 THEN 'rare' ELSE 'momentum' END, 'EURUSD', '1h', 7, :request, :owner, :owner,
       {at}, {at}, CASE WHEN n % 100 = 0 THEN NULL ELSE {at} END
FROM numbers
"""
_AT_SQLITE = "strftime('%Y-%m-%d %H:%M:%f', :begin, n || ' seconds') || '000'"
_AT_POSTGRESQL = "CAST(:begin AS timestamptz) + n * interval '1 second'"


def measure() -> list[Result]:
    return [result for engine in ENGINES for result in asyncio.run(_measure(engine))]


async def _measure(engine: str) -> list[Result]:
    with Processes() as processes:
        directories = [processes.directory / name for name in ("few", "many")]
        with (
            empty_database(engine, directories[0]) as few,
            empty_database(engine, directories[1]) as many,
        ):
            servers = []
            for database, directory, count in zip((few, many), directories, (_FEW, _MANY), strict=True):
                backend = await http_backend(processes, database, directory)  # makes the tables
                await asyncio.to_thread(_fill, engine, database, count)
                servers.append(backend)
            results = [await _compared(engine, name, servers, queries) for name, queries in _pages().items()]
            for server in servers:
                processes.end(server.pid)
    return results


def _pages() -> dict[str, tuple[str, str]]:
    """Return what is asked of the few, and of the many."""
    same = {
        "first page": "",
        "of a state": "&state=pending",
        "of a strategy": "&strategy=rare",
        "what has not ended": "&active_only=true",
    }
    deep = [
        "&cursor=" + to_cursor(Position(_BEGIN + timedelta(seconds=count // 2), "op-0"))
        for count in (_FEW, _MANY)
    ]
    return {**{name: (query, query) for name, query in same.items()}, "half-way down": (deep[0], deep[1])}


async def _compared(engine: str, name: str, servers: list[HttpBackend], queries: tuple[str, str]) -> Result:
    times: list[list[float]] = [[], []]
    clients = [server.client() for server in servers]
    for number in range(_ROUNDS + 5):
        for client, query, taken in zip(clients, queries, times, strict=True):
            seconds = await _asked(client, f"/api/v1/operations?limit={_LIMIT}{query}")
            if number >= 5:
                taken.append(seconds)
    for client in clients:
        await client.aclose()
    few, many = map(statistics.median, times)
    return Result(
        f"list of operations, {name}, {engine}: of {_MANY:,}",
        many,
        f"of {_FEW:,}",
        few,
        f"≤ {_FLAT} x",
        many <= _FLAT * few,
    )


async def _asked(client: httpx.AsyncClient, path: str) -> float:
    started = time.perf_counter()
    answer = await client.get(path)
    taken = time.perf_counter() - started
    assert answer.status_code == 200, answer.text
    # The counts of the few of a strategy, or that wait, are below a page's.
    assert answer.json()["data"], path
    return taken


def _fill(engine: str, database: str, count: int) -> None:
    at = _AT_SQLITE if engine == SQLITE else _AT_POSTGRESQL
    # What waits for a broker is nobody's to take over.
    values = {"count": count, "request": "{" + " " * 400 + "}", "owner": BROKER_OWNER}
    begin = _BEGIN.strftime("%Y-%m-%d %H:%M:%S") + ("" if engine == SQLITE else "+00")
    made = create_engine(database.replace("postgresql://", "postgresql+psycopg://"))
    with made.begin() as connection:
        connection.execute(text(_FILL.format(at=at)), {**values, "begin": begin})
    with made.begin() as connection:
        connection.execute(text("ANALYZE"))
    made.dispose()
