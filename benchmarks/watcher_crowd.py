"""Watchers of one operation; a program of its own, with sockets alone, so that they cost little.

``python -m benchmarks.watcher_crowd URL PATH TOKEN WATCHERS``

Of each report it writes how old it was when it had come to the first, the middle and the last of them.
"""

import asyncio
import json
import re
import sys
import time
from urllib.parse import urlsplit

from benchmarks.broker import READY
from benchmarks.http_load import request_of
from benchmarks.stamped_runner import MADE_AT

_STAMP = re.compile(rb'"' + MADE_AT.encode() + rb'": ?([0-9.]+)')
_CONNECTING_AT_ONCE = 50


class _Watcher(asyncio.Protocol):
    def __init__(self, crowd: "_Crowd", request: bytes) -> None:
        self._crowd = crowd
        self._request = request

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        for stamp in _STAMP.findall(data):
            self._crowd.came(stamp)

    def connection_lost(self, exc: Exception | None) -> None:
        sys.exit(f"A watcher was cut off: {exc}")


class _Crowd:
    def __init__(self, watchers: int) -> None:
        self._watchers = watchers
        self._ages: dict[bytes, list[float]] = {}
        self.everybody_is_there = asyncio.Event()

    def came(self, stamp: bytes) -> None:
        ages = self._ages.setdefault(stamp, [])
        ages.append(time.monotonic() - float(stamp))
        if len(ages) == self._watchers:
            self.everybody_is_there.set()
            del self._ages[stamp]
            sys.stdout.write(json.dumps([ages[0], ages[len(ages) // 2], ages[-1]]) + "\n")


async def main(url: str, path: str, token: str, watchers: int) -> None:
    where = urlsplit(url)
    assert where.hostname is not None
    assert where.port is not None
    host, port = where.hostname, where.port
    crowd, request = _Crowd(watchers), request_of("GET", path, token)
    loop = asyncio.get_running_loop()
    for _ in range(0, watchers, _CONNECTING_AT_ONCE):
        await asyncio.gather(
            *(
                loop.create_connection(lambda: _Watcher(crowd, request), host, port)
                for _ in range(_CONNECTING_AT_ONCE)
            )
        )
    await crowd.everybody_is_there.wait()
    sys.stdout.write(f"{READY}\n")
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])))
