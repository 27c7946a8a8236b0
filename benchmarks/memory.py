"""What a backend grows by over ten thousand operations, against its size after the first thousand."""

import asyncio
from collections.abc import Iterator
from urllib.parse import urlsplit

import psutil

from benchmarks.broker import Processes
from benchmarks.databases import SQLITE, empty_database
from benchmarks.http_backend import WISH, HttpBackend, http_backend
from benchmarks.http_load import read_answer, request_of
from benchmarks.measure import Result

_FIRST = 1_000
_ALL = 10_000
_CLIENTS = 2
"""Few enough that the agent keeps up: what waits in its lane is memory too."""
_SETTLE_S = 15.0
_FLAT = 1.03
MIB = 2**20


def measure() -> list[Result]:
    return [asyncio.run(_measure())]


async def _measure() -> Result:
    with Processes() as processes:
        home = processes.directory / "home"
        with empty_database(SQLITE, home) as database:
            backend = await http_backend(processes, database, home, "--agent")
            sizes = [await _size_after(backend, count) for count in (_FIRST, _ALL - _FIRST)]
            processes.end(backend.pid)
    return Result(
        f"MiB of a backend and its agent after {_ALL:,} operations, submitted and cancelled",
        sizes[1],
        f"after {_FIRST:,}",
        sizes[0],
        f"≤ {_FLAT} x",
        sizes[1] <= _FLAT * sizes[0],
        f"{sizes[1] - sizes[0]:+.1f} MiB, "
        f"{1024 * (sizes[1] - sizes[0]) / (_ALL - _FIRST):+.2f} KiB for each operation",
    )


async def _size_after(backend: HttpBackend, operations: int) -> float:
    """Have so many operations submitted and cancelled; return the memory of the process in MiB."""
    numbers = iter(range(operations))
    await asyncio.gather(*(_client(backend, numbers) for _ in range(_CLIENTS)))
    await asyncio.sleep(_SETTLE_S)
    return float(psutil.Process(backend.pid).memory_info().rss) / MIB


async def _client(backend: HttpBackend, numbers: Iterator[int]) -> None:
    where = urlsplit(backend.url)
    reader, writer = await asyncio.open_connection(where.hostname, where.port)
    for _ in numbers:
        writer.write(request_of("POST", "/api/v1/trainings", backend.token, WISH))
        status, body = await read_answer(reader)
        assert status == 202, body
        # The id, without reading the rest as JSON.
        operation_id = body.partition(b'"task_id":"')[2].partition(b'"')[0].decode()
        writer.write(request_of("POST", f"/api/v1/operations/{operation_id}/cancel", backend.token))
        status, body = await read_answer(reader)
        assert status == 200, body
    writer.close()
