"""Clients of an HTTP server that ask again and again; a program of its own.

Sockets and bytes, since a client library would need more of the processor than what is measured.
"""

import asyncio
import json
import sys
import time
from dataclasses import asdict, dataclass, field
from typing import Any
from urllib.parse import urlsplit

from benchmarks.broker import Processes

_GRACE_S = 60.0


@dataclass(frozen=True, slots=True)
class Load:
    """What is asked, by how many at once, and for how long."""

    url: str
    method: str
    path: str
    clients: int
    seconds: float
    token: str | None = None
    body: Any = None
    pause_s: float = 0.0
    """Of each client between two requests."""


@dataclass(slots=True)
class Answers:
    """How it went."""

    seconds: list[float] = field(default_factory=list)
    """Of each request."""
    took_s: float = 0.0
    refused: int = 0
    """Answers that were no success."""

    @property
    def per_s(self) -> float:
        return len(self.seconds) / self.took_s


async def answers_to(load: Load) -> Answers:
    """Return when the time is over and the last client has its answer."""
    found = Answers()
    started = time.perf_counter()
    await asyncio.gather(*(_client(load, found, started + load.seconds) for _ in range(load.clients)))
    found.took_s = time.perf_counter() - started
    return found


async def _client(load: Load, found: Answers, end: float) -> None:
    where = urlsplit(load.url)
    reader, writer = await asyncio.open_connection(where.hostname, where.port)
    request = request_of(load.method, load.path, load.token, load.body)
    try:
        while (began := time.perf_counter()) < end:
            writer.write(request)
            status, _ = await read_answer(reader)
            found.seconds.append(time.perf_counter() - began)
            found.refused += status >= 300
            if load.pause_s:
                await asyncio.sleep(load.pause_s)
    finally:
        writer.close()


def request_of(method: str, path: str, token: str | None, body: Any = None) -> bytes:
    """Return the bytes of a request."""
    content = b"" if body is None else json.dumps(body).encode()
    lines = [f"{method} {path} HTTP/1.1", "Host: 127.0.0.1"]
    if token:
        lines.append(f"Authorization: Bearer {token}")
    if body is not None:
        lines += ["Content-Type: application/json", f"Content-Length: {len(content)}"]
    return "\r\n".join([*lines, "", ""]).encode() + content


async def read_answer(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    """Read an answer whose length is known, and return its status and its body."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
    return int(head[9:12]), await reader.readexactly(int(length))


async def answered(processes: Processes, *loads: Load) -> list[Answers]:
    """Have each load made by a process of its own, all at the same time; return how each went."""
    pids = [processes.python("-m", "benchmarks.http_load", json.dumps(asdict(load))) for load in loads]
    end = time.monotonic() + max(load.seconds for load in loads) + _GRACE_S
    while time.monotonic() < end:
        said = [processes.said(pid) for pid in pids]
        if all(text.endswith("}\n") for text in said):
            return [Answers(**json.loads(text)) for text in said]
        await asyncio.sleep(0.05)
    raise RuntimeError(f"A load did not end: {[text[-2000:] for text in said]}")


if __name__ == "__main__":
    sys.stdout.write(json.dumps(asdict(asyncio.run(answers_to(Load(**json.loads(sys.argv[1])))))) + "\n")
