"""A bad network, at will: a TCP proxy between clients and a broker."""

import asyncio
import socket
import struct
import threading
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, Self, TypeVar
from urllib.parse import urlsplit, urlunsplit

from tests.broker.ports import free_ports

_CHUNK_BYTES = 65_536
_CHUNKS_UNDER_WAY = 64
_DONE_WITHIN_S = 60.0
_DEFAULT_PORTS = {"amqp": 5672, "amqps": 5671}
_RESET = struct.pack("ii", 1, 0)
"""The value of SO_LINGER that makes closing send RST."""

T = TypeVar("T")


class Proxy:
    """Passes on what clients and the broker say to each other, until it is told otherwise.

    A context manager. It works in a thread of its own, so that it goes on while a test blocks its event loop;
    every method takes effect before it returns, within milliseconds, and may be called from any thread.
    """

    def __init__(self, url: str, *, host: str = "127.0.0.1") -> None:
        """Prepare a proxy in front of the broker at a URL; `url` is the same one through the proxy.

        Args:
            url: of the broker.
            host: the address of this machine at which to listen.
        """
        self._host = host
        parts = urlsplit(url)
        self._target = (parts.hostname or "localhost", parts.port or _DEFAULT_PORTS[parts.scheme])
        (self.port,) = free_ports(1)
        credentials, at, _ = parts.netloc.rpartition("@")
        self.url = urlunsplit(parts._replace(netloc=f"{credentials}{at}{host}:{self.port}"))
        self._delay_s = 0.0
        self._passing = asyncio.Event()
        self._passing.set()
        self._server: asyncio.Server | None = None
        self._links: dict[asyncio.Task[None], tuple[asyncio.StreamWriter, ...]] = {}
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self._do(self._listen())
        return self

    def __exit__(self, *_: object) -> None:
        self._do(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    @property
    def connections(self) -> int:
        """How many connections there are."""
        return len(self._links)

    # --- what goes wrong --------------------------------------------------------------------------

    def reset(self) -> None:
        """End all connections with RST, as after a crash of the machine at the other end."""
        self._do(self._cut(with_reset=True))

    def finish(self) -> None:
        """End all connections with FIN, as after the end of the program at the other end."""
        self._do(self._cut(with_reset=False))

    def refuse(self) -> None:
        """Refuse new connections, as when nothing listens there; those there are go on."""
        self._call(self._stop_listening)

    def freeze(self) -> None:
        """Let nothing through, neither bytes nor the end of a connection, as when a cable is pulled.

        Nobody is told: connections look alive, new ones are accepted and hear nothing.
        """
        self._call(self._passing.clear)

    def delay(self, seconds: float) -> None:
        """Let everything arrive later by that time, in each direction."""

        def change() -> None:
            self._delay_s = seconds

        self._call(change)

    def restore(self) -> None:
        """Be a good network again.

        What `freeze` has held goes on to where it was going, as TCP sends again what got lost; call `reset`
        or `finish` before if it shall not.
        """

        def heal() -> None:
            self._delay_s = 0.0
            self._passing.set()

        self._call(heal)
        self._do(self._listen())

    # --- in the thread ----------------------------------------------------------------------------

    def _do(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(_DONE_WITHIN_S)

    def _call(self, action: Callable[[], None]) -> None:
        async def act() -> None:
            action()

        self._do(act())

    async def _listen(self) -> None:
        if self._server is None:
            self._server = await asyncio.start_server(self._accept, self._host, self.port)

    def _stop_listening(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None

    async def _cut(self, *, with_reset: bool) -> None:
        tasks = list(self._links)
        writers = [writer for ends in self._links.values() for writer in ends]
        for writer in writers:
            if with_reset:
                with suppress(OSError):  # it was closed this moment, and its link knows soon
                    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            # Not close(), which would first send what is under way.
            writer.transport.abort()
        for task in tasks:
            task.cancel()
        closed = [writer.wait_closed() for writer in writers]
        await asyncio.gather(*tasks, *closed, return_exceptions=True)

    async def _end(self) -> None:
        self._stop_listening()
        await self._cut(with_reset=False)

    def _accept(self, from_client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        # Not as a coroutine: asyncio would complain of each that is cancelled.
        task = self._loop.create_task(self._link(from_client, to_client))
        self._links[task] = (to_client,)
        task.add_done_callback(self._unlink)

    def _unlink(self, task: asyncio.Task[None]) -> None:
        for writer in self._links.pop(task):
            writer.close()
        if not task.cancelled():
            task.result()

    async def _link(self, from_client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        try:
            from_broker, to_broker = await asyncio.open_connection(*self._target)
            self._links[task] = (to_client, to_broker)
            async with asyncio.TaskGroup() as both:
                both.create_task(self._pass_on(from_client, to_broker))
                both.create_task(self._pass_on(from_broker, to_client))
        except* OSError:
            pass  # one side is gone: so is the other

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        under_way: asyncio.Queue[tuple[float, bytes | None]] = asyncio.Queue(_CHUNKS_UNDER_WAY)

        async def read() -> None:
            chunk: bytes | None = b"-"
            while chunk:
                try:
                    chunk = await reader.read(_CHUNK_BYTES)
                except ConnectionError:
                    chunk = None
                await under_way.put((self._loop.time() + self._delay_s, chunk))

        async def write() -> None:
            while True:
                due, chunk = await under_way.get()
                await asyncio.sleep(due - self._loop.time())
                await self._passing.wait()
                if chunk is None:
                    raise ConnectionResetError
                if not chunk:
                    writer.write_eof()
                    return
                writer.write(chunk)
                await writer.drain()

        async with asyncio.TaskGroup() as both:
            both.create_task(read())
            both.create_task(write())
