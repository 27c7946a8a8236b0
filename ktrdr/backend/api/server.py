"""Serving the application inside a running event loop, for as long as a block lasts."""

import asyncio
import logging
import socket
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import structlog
import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from ktrdr.addresses import is_loopback
from ktrdr.errors import SettingsError
from ktrdr.settings import Settings

_HEAD_S = 10.0
_UNREAD_S = 30.0
_MAX_HEAD_BYTES = 16 * 1024
_MAX_PIPELINED = 16
_MAX_CONNECTIONS = 4096
_KEEP_ALIVE_S = 75
_BACKLOG = 2048
"""Clients that wait to be let in, as uvicorn has it."""
_TURN_S = 0.0005

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Certificate:
    """What makes it HTTPS: files in PEM form."""

    chain: Path
    """The server's certificate, and those between it and the authority's."""
    key: Path


def certificate_of(settings: Settings) -> Certificate | None:
    """Return the certificate that the settings name, if they do.

    Raises:
        SettingsError: they name a certificate or a key, but not both.
    """
    chain, key = settings.listen_certificate, settings.listen_key
    if chain is None and key is None:
        return None
    if chain is None or key is None:
        raise SettingsError(
            "A certificate of the HTTP endpoint is of use only with its key, and the other way round.",
            fix="Set both KTRDR_LISTEN_CERTIFICATE and KTRDR_LISTEN_KEY, or neither.",
        )
    return Certificate(chain, key)


def refuse_strangers(host: str, *, protected: bool) -> None:
    """Refuse an address at which others than this machine would be served without a token.

    Raises:
        SettingsError: it is such an address.
    """
    if not protected and not is_loopback(host):
        raise SettingsError(
            f"Without a token nothing is served on {host}: everyone who reaches it could read and write.",
            fix="Set KTRDR_LISTEN to 127.0.0.1 and a port, or do without --insecure.",
        )


async def listen(host: str, port: int) -> socket.socket:
    """Take an address, at which clients then wait to be served.

    Raises:
        SettingsError: it cannot be had.
    """
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, address = found[0]
        listener = socket.socket(family, kind, protocol)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen(_BACKLOG)
        except BaseException:
            listener.close()
            raise
    except OSError as error:
        raise SettingsError(
            f"{host}:{port} cannot be listened on: {error.strerror or error}.",
            fix="Set KTRDR_LISTEN to an address of this machine and a free port.",
        ) from error
    return listener


@asynccontextmanager
async def serving(
    app: FastAPI,
    host: str,
    port: int,
    *,
    listener: socket.socket | None = None,
    certificate: Certificate | None = None,
    stop_within_s: int = 5,
) -> AsyncIterator[tuple[str, int]]:
    """Serve the application, and yield the address; port 0 means any that is free.

    Signals stay with the caller. At the end of the block requests in progress have ``stop_within_s`` to end,
    and the listener is closed.

    Args:
        app: what is served.
        host: where.
        port: likewise.
        listener: what `listen` has returned for that; None: it is asked now.
        certificate: makes it HTTPS.
        stop_within_s: see above.

    Raises:
        SettingsError: the address cannot be had, the certificate not be read, or everyone could reach an
            application that asks for no token.
    """
    refuse_strangers(host, protected=app.state.protected)
    config = uvicorn.Config(
        app,
        http=_ImpatientProtocol,
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        limit_concurrency=_MAX_CONNECTIONS,
        timeout_keep_alive=_KEEP_ALIVE_S,
        timeout_graceful_shutdown=stop_within_s,
        ssl_certfile=certificate.chain if certificate else None,
        ssl_keyfile=certificate.key if certificate else None,
    )
    with _logging(), _quick_turns():
        try:
            config.load()
        except OSError as error:  # also what OpenSSL has to say
            raise SettingsError(
                f"The certificate cannot be used: {error.strerror or error}.",
                fix="Give a certificate and its key, both as PEM files that this user may read.",
            ) from error
        listener = listener or await listen(host, port)
        server = _Server(config)
        running = asyncio.create_task(server.serve(sockets=[listener]), name="http")
        try:
            await _until(server.listening, running)
            address: tuple[str, int] = listener.getsockname()[:2]
            _log.info("serving", address=f"{address[0]}:{address[1]}", tls=certificate is not None)
            yield address
        finally:
            # Who watches is told to come back; nothing else would end such an answer.
            app.state.closing.set()
            server.should_exit = True
            await running
            await asyncio.gather(*server.server_state.tasks, return_exceptions=True)
            listener.close()


class _Server(uvicorn.Server):
    """One that leaves signals alone and says when it listens."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.listening = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.listening.set()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class _ImpatientProtocol(HttpToolsProtocol):
    """Closes connections whose client neither asks nor reads, or asks for too much; uvicorn waits for ever.

    What is no part of a body may have `_MAX_HEAD_BYTES`: a head, and what frames the parts of a body.
    """

    _asking: asyncio.TimerHandle | None = None
    _unread: asyncio.TimerHandle | None = None
    _framing_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as its parent
        super().connection_made(transport)
        self._watch_head()

    def data_received(self, data: bytes) -> None:
        self._framing_bytes += len(data)
        super().data_received(data)
        if self._framing_bytes > _MAX_HEAD_BYTES and not self.transport.is_closing():
            self.send_400_response("The head of the request is too large.")
        self._watch_head()

    def on_headers_complete(self) -> None:
        self._framing_bytes = 0
        if len(self.pipeline) >= _MAX_PIPELINED:
            raise ValueError("too many requests without waiting for an answer")  # answered with 400
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._framing_bytes = 0
        super().on_body(body)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._unread = self.loop.call_later(_UNREAD_S, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._cancel(self._unread)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._cancel(self._asking)
        self._cancel(self._unread)

    def _watch_head(self) -> None:
        """Limit the time from the first byte of a request, or the connection, to the end of its head."""
        cycle = cast("RequestResponseCycle | None", self.cycle)  # before the first request there is none
        if cycle is not None and not cycle.response_complete:
            self._cancel(self._asking)
            self._asking = None
        elif self._asking is None:
            self._asking = self.loop.call_later(_HEAD_S, self.transport.abort)

    def _cancel(self, timer: asyncio.TimerHandle | None) -> None:
        if timer is not None:
            timer.cancel()


class _ToStructlog(logging.Handler):
    """Passes on what uvicorn complains of."""

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        if isinstance(error, asyncio.CancelledError):
            return  # of a request that did not end in time when this was stopped
        _log.log(record.levelno, "http server", said=record.getMessage().strip(), exc_info=error)


@contextmanager
def _logging() -> Iterator[None]:
    logger, handler = logging.getLogger("uvicorn.error"), _ToStructlog(logging.WARNING)
    logger.addHandler(handler)
    propagate, logger.propagate = logger.propagate, False
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.propagate = propagate


@contextmanager
def _quick_turns() -> Iterator[None]:
    """Have threads that compute let the event loop in after half a millisecond rather than five.

    While trainings are committed and watchers told, 99 of 100 requests for health were answered within 20 ms
    instead of 33; how many trainings were accepted did not suffer.
    """
    before = sys.getswitchinterval()
    sys.setswitchinterval(_TURN_S)
    try:
        yield
    finally:
        sys.setswitchinterval(before)


async def _until(event: asyncio.Event, running: asyncio.Task[None]) -> None:
    waiting = asyncio.create_task(event.wait())
    try:
        await asyncio.wait((waiting, running), return_when=asyncio.FIRST_COMPLETED)
    finally:
        waiting.cancel()
