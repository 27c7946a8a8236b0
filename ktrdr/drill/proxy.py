"""A network between an agent and the broker that can be cut: a TCP proxy in this process."""

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Self
from urllib.parse import urlsplit, urlunsplit

from ktrdr.bus.rabbitmq_address import Address

_CHUNK_BYTES = 65_536
_CONNECT_WITHIN_S = 10.0
_HOST = "127.0.0.1"


class Proxy:
    """Passes on what clients and the broker say to each other, until it is cut.

    An asynchronous context manager. It listens on this machine only, without TLS: with the broker it speaks
    TLS itself, whose certificate is not for this machine.

    Args:
        addresses: of the broker's nodes; the first that answers is spoken to.
    """

    def __init__(self, addresses: Sequence[Address]) -> None:
        self._addresses = addresses
        self._passing = asyncio.Event()
        self._passing.set()
        self._server: asyncio.Server | None = None
        self._links: set[asyncio.Task[None]] = set()
        self.accepted = 0
        """How many connections have been made through it."""

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, _HOST, 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        links = list(self._links)
        for link in links:
            link.cancel()
        await asyncio.gather(*links, return_exceptions=True)

    @property
    def url(self) -> str:
        """The broker's URL through this proxy, with user and password."""
        assert self._server is not None, "the proxy is not listening"
        port = self._server.sockets[0].getsockname()[1]
        parts = urlsplit(self._addresses[0].url)
        credentials, at, _ = parts.netloc.rpartition("@")
        return urlunsplit(("amqp", f"{credentials}{at}{_HOST}:{port}", parts.path, "", ""))

    def cut(self) -> None:
        """Let nothing through, neither bytes nor the end of a connection, as when a cable is pulled."""
        self._passing.clear()

    def mend(self) -> None:
        """Let everything through again; what was on the way arrives, as TCP sends again what got lost."""
        self._passing.set()

    async def _accept(self, from_client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._links.add(task)
        self.accepted += 1
        try:
            with contextlib.suppress(OSError, TimeoutError):
                await self._link(from_client, to_client)
        finally:
            self._links.discard(task)
            to_client.close()

    async def _link(self, from_client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        await self._passing.wait()
        from_broker, to_broker = await self._connect()
        ways = [
            asyncio.create_task(self._pass_on(from_client, to_broker)),
            asyncio.create_task(self._pass_on(from_broker, to_client)),
        ]
        try:
            # When one side is gone, so is the other.
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            to_broker.close()

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        problem: Exception = ConnectionError("there is no node")
        for address in self._addresses:
            try:
                async with asyncio.timeout(_CONNECT_WITHIN_S):
                    return await asyncio.open_connection(address.host, address.port, ssl=address.tls)
            except (OSError, TimeoutError) as error:
                problem = error
        raise problem

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while chunk := await reader.read(_CHUNK_BYTES):
            await self._passing.wait()
            writer.write(chunk)
            await writer.drain()
        await self._passing.wait()
