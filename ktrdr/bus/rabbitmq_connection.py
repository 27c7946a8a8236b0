"""One connection to RabbitMQ, made again whenever it is lost."""

import asyncio
import itertools
import logging
import random
import ssl
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, cast

import aiormq
import structlog
from aiormq.connection import TransportFactory
from aiormq.exceptions import ConnectionClosed

from ktrdr.bus.rabbitmq_address import Address
from ktrdr.bus.rabbitmq_errors import LIBRARY_ERRORS, connect_error, typed_errors
from ktrdr.bus.rabbitmq_stats import Tally
from ktrdr.errors import AccessRefusedError, BusClosedError, BusError, BusUnavailableError

_log = structlog.get_logger()

# What aiormq has to say is said here, in other words; without a handler Python would print it.
logging.getLogger("aiormq").addHandler(logging.NullHandler())

_FIRST_PAUSE_S = 0.25
_REFUSED_PAUSE_S = 15.0
"""A password that is wrong now is wrong for a while, and each attempt is a line in the broker's log."""
_SPREAD = 0.25
_STABLE_AFTER_S = 5.0
_CHANNELS_PER_CONNECTION = 2047


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionLimits:
    """How long things may take, in seconds."""

    heartbeat_s: int = 15
    """A peer that is silent for about twice as long counts as lost, on either side."""
    connect_s: float = 10.0
    request_s: float = 10.0
    """One question to the broker, and its answer."""
    close_s: float = 1.0
    longest_pause_s: float = 5.0
    """Between two attempts to connect."""


class RabbitMQConnection:
    """Keeps one connection alive in the background, from the moment it is made until it is closed.

    Args:
        addresses: are tried in turn.
        name: what the management UI shows, as in ``host-agent@machine publisher``.
        limits: of time.
        tally: counts losses.
        rng: spreads the pauses, so that clients that were lost together do not return together.
    """

    def __init__(
        self,
        addresses: Sequence[Address],
        *,
        name: str,
        limits: ConnectionLimits,
        tally: Tally,
        rng: random.Random,
    ) -> None:
        self._addresses = addresses
        self.name = name
        self.limits = limits
        self._tally = tally
        self._rng = rng
        self._socket = _Socket(None)
        self._connection: _Connection | None = None
        self._problem: BusError | None = None
        self._news = asyncio.Event()
        self._is_closed = False
        self._task = asyncio.create_task(self._run(), name=f"rabbitmq {name}")

    @property
    def is_connected(self) -> bool:
        """Whether there is a connection now, as far as is known."""
        return self._connection is not None and not self._connection.is_closed

    @property
    def is_closed(self) -> bool:
        """Whether it was closed, by `close`."""
        return self._is_closed

    @property
    def is_blocked(self) -> bool:
        """Whether the broker takes no messages over this connection, for lack of memory or disk."""
        if self._connection is None or self._connection.is_closed:
            return False
        # aiormq has no question for it, but its `ready` does not return while it is so.
        waiting = self._connection.ready()
        try:
            waiting.send(None)
        except StopIteration:
            return False
        waiting.close()
        return True

    async def connection(self) -> aiormq.Connection:
        """Wait for a connection, for ever if need be.

        Raises:
            AccessRefusedError: the broker does not let this user in.
            BusClosedError: this was closed.
        """
        while True:
            if self._is_closed:
                raise BusClosedError(f"The connection '{self.name}' was closed.")
            if self._connection is not None and not self._connection.is_closed:
                return self._connection
            if isinstance(self._problem, AccessRefusedError):
                raise AccessRefusedError(self._problem.message, fix=self._problem.fix)
            await self._news.wait()

    async def first_connection(self) -> aiormq.Connection:
        """Wait for a connection, or for the first attempt at one to fail, for those who would rather know.

        Raises:
            BusError: why it failed.
        """
        while self._problem is None and not self.is_connected and not self._is_closed:
            await self._news.wait()
        if self._problem is not None and not isinstance(self._problem, AccessRefusedError):
            raise self.unavailable()
        return await self.connection()

    async def unblocked(self) -> None:
        """Wait for a connection over which the broker takes messages.

        Raises:
            BusError: as for `connection`.
        """
        connection = await self.connection()
        while self.is_blocked:
            ready, closing = asyncio.ensure_future(connection.ready()), connection.closing
            try:
                await asyncio.wait((ready, closing), return_when=asyncio.FIRST_COMPLETED)
            finally:
                ready.cancel()
                closing.cancel()
            connection = await self.connection()

    async def open_channel(self, *, confirms: bool) -> aiormq.Channel:
        """Open a channel, once there is a connection.

        Raises:
            BusError: as for `connection`, or the broker opens no more.
        """
        connection = await self.connection()
        # aiormq numbers upwards from the highest in use, past what the broker allows.
        number = next(n for n in itertools.count(1) if n not in connection.channels)
        if number > _CHANNELS_PER_CONNECTION:
            raise BusUnavailableError(f"All {_CHANNELS_PER_CONNECTION:,} channels are in use.")
        with typed_errors("opening a channel"):
            try:
                channel = await connection.channel(number, publisher_confirms=confirms)
            except RuntimeError as error:
                raise ConnectionClosed(0, str(error)) from error
        return cast(aiormq.Channel, channel)

    def unavailable(self) -> BusUnavailableError:
        """Return what to raise when a wait for the connection took too long."""
        if self._problem is not None:
            return BusUnavailableError(self._problem.message, fix=self._problem.fix)
        return BusUnavailableError("The broker has not answered yet.")

    async def close(self) -> None:
        """Disconnect for good; takes about `ConnectionLimits.close_s` if the broker does not play along."""
        self._is_closed = True
        self._tell()
        self._task.cancel()
        await asyncio.wait((self._task,))

    # --- the background ---

    async def _run(self) -> None:
        pause_s = _FIRST_PAUSE_S
        for address in itertools.cycle(self._addresses):
            began = asyncio.get_running_loop().time()
            try:
                await self._live(address)
            except Exception as error:  # anything may listen at that port, and say what it likes
                self._complain(error if isinstance(error, BusError) else connect_error(error, address))
            lived_s = asyncio.get_running_loop().time() - began
            if self._problem is None and lived_s > _STABLE_AFTER_S:
                pause_s = _FIRST_PAUSE_S
            refused = isinstance(self._problem, AccessRefusedError)
            await asyncio.sleep(
                self._rng.uniform(1 - _SPREAD, 1 + _SPREAD) * (_REFUSED_PAUSE_S if refused else pause_s)
            )
            pause_s = min(2 * pause_s, self.limits.longest_pause_s)

    async def _live(self, address: Address) -> None:
        """Connect, and return when the connection is lost."""
        self._socket = _Socket(address.tls)
        connection = self._new(address)
        try:
            await self._connect(connection, address)
            self._connection, self._problem = connection, None
            self._tell()
            _log.info("connected to the broker", connection=self.name, broker=str(address))
            closing = connection.closing
            await asyncio.wait((closing,))
            error = None if closing.cancelled() else closing.exception()
            reason = str(error or "") or "the broker fell silent"
            self._tally.count("connections_lost")
            _log.warning("connection to the broker lost", connection=self.name, reason=reason)
        finally:
            self._connection = None
            await self._end(connection)

    def _new(self, address: Address) -> "_Connection":
        return _Connection(
            f"{address.url}?heartbeat={self.limits.heartbeat_s}",
            transport_factory=self._socket,
            client_properties={
                "connection_name": self.name,
                "product": "ktrdr",
                "version": version("ktrdr"),
                "information": "",
            },
        )

    async def _connect(self, connection: "_Connection", address: Address) -> None:
        connecting = asyncio.ensure_future(connection.connect())
        try:
            await asyncio.wait((connecting,), timeout=self.limits.connect_s)
        finally:
            if not connecting.done():
                # Not the other way round: its cleaning up would wait for a peer that says nothing.
                self._socket.abort()
                connecting.cancel()
                await asyncio.wait((connecting,))
        if connecting.cancelled():
            raise BusUnavailableError(
                f"The broker at {address} has not answered in {self.limits.connect_s:g} s."
            )
        connecting.result()

    async def _end(self, connection: "_Connection") -> None:
        """Close, with the courtesy that the time allows."""
        closing = asyncio.ensure_future(connection.close(ConnectionClosed(0, "closed by this client")))
        await asyncio.wait((closing,), timeout=self.limits.close_s)
        self._socket.abort()
        await asyncio.wait((closing,), timeout=self.limits.close_s)
        closing.cancel()
        with suppress(*LIBRARY_ERRORS, asyncio.CancelledError, asyncio.InvalidStateError):
            closing.result()

    def _complain(self, error: BusError) -> None:
        # Each cause once, and not at every attempt.
        level = (
            _log.debug
            if self._problem is not None and self._problem.message == error.message
            else _log.warning
        )
        level("broker not reached", connection=self.name, reason=error.message, fix=error.fix)
        self._problem = error
        self._tell()

    def _tell(self) -> None:
        self._news.set()
        self._news = asyncio.Event()


class _Connection(aiormq.Connection):
    HEARTBEAT_GRACE_MULTIPLIER = 2
    # Who waits for room in the queue writes to a channel that was closed meanwhile, which the broker answers
    # by ending the connection. So there is always room: what is under way is bounded elsewhere.
    FRAME_BUFFER_SIZE = 0


class _Socket(TransportFactory):
    """Where a connection's bytes go; can be cut off, whatever aiormq still waits for."""

    def __init__(self, tls: ssl.SSLContext | None) -> None:
        self._tls = tls
        self._writer: asyncio.StreamWriter | None = None

    async def create(self, url: Any, **_: Any) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, self._writer = await asyncio.open_connection(url.host, url.port, ssl=self._tls)
        return reader, self._writer

    def abort(self) -> None:
        if self._writer is not None:
            self._writer.transport.abort()
