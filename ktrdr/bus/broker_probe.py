"""Asking a broker over AMQP what is there and how it differs, without changing anything."""

import asyncio
import random
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from enum import Enum, auto

from aiormq.abc import AbstractChannel
from aiormq.exceptions import (
    ChannelAccessRefused,
    ChannelClosed,
    ChannelLockedResource,
    ChannelNotFoundEntity,
    ChannelPreconditionFailed,
)
from pamqp.common import FieldTable

from ktrdr.bus.rabbitmq_address import Address, parse_addresses
from ktrdr.bus.rabbitmq_arguments import WireNames, queue_arguments
from ktrdr.bus.rabbitmq_connection import ConnectionLimits, RabbitMQConnection
from ktrdr.bus.rabbitmq_errors import LIBRARY_ERRORS, UNREACHABLE_FIX, bus_error
from ktrdr.bus.rabbitmq_stats import Tally
from ktrdr.bus.topology import Exchange, Queue
from ktrdr.errors import BusUnavailableError

_ANSWER_TIMEOUT_S = 10.0
_DIFFERENCE = re.compile(
    r"inequivalent arg '(?P<name>.+?)' for .+: received (?P<wanted>.*) but current is (?P<found>.*)"
)
_QUOTED = re.compile(r"'(.*?)'")


class Standing(Enum):
    """How something on the broker stands to what is wanted."""

    SAME = auto()
    MISSING = auto()
    DIFFERENT = auto()
    THERE = auto()
    """It is there; this user may not ask whether it is as wanted."""


@dataclass(frozen=True, slots=True)
class Difference:
    """An argument that is not as wanted; both values in the broker's words."""

    name: str
    found: str
    wanted: str


@dataclass(frozen=True, slots=True)
class Sighting:
    """An exchange or a queue, as it was seen."""

    standing: Standing
    difference: Difference | None = None
    """The first; a broker tells one at a time."""
    ready: int = 0
    """Messages that wait in the queue."""
    consumers: int = 0


@dataclass(frozen=True, slots=True)
class Server:
    """Who answered."""

    product: str
    version: str
    host: str
    port: int
    vhost: str
    user: str
    encrypted: bool


class BrokerProbe:
    """A connection that only asks; each question has a channel of its own, since a no closes it."""

    def __init__(self, connection: RabbitMQConnection, address: Address, prefix: str) -> None:
        self._connection = connection
        self._address = address
        self._names = WireNames(prefix)

    async def server(self) -> Server:
        """Tell who is asked.

        Raises:
            BusUnavailableError: the connection was lost.
        """
        async with self._in_time():
            properties = (await self._connection.connection()).server_properties
        return Server(
            product=str(properties.get("product", "an unknown broker")),
            version=str(properties.get("version", "?")),
            host=self._address.host,
            port=self._address.port,
            vhost=self._address.vhost,
            user=self._address.user,
            encrypted=self._address.tls is not None,
        )

    async def exchange(self, exchange: Exchange) -> Sighting:
        """Look at an exchange.

        Raises:
            BusUnavailableError: the connection was lost.
        """
        name = self._names.wire(exchange.name)

        async def declare(channel: AbstractChannel, passive: bool) -> Sighting:
            await channel.exchange_declare(
                name, exchange_type=exchange.kind.value, durable=True, passive=passive
            )
            return Sighting(Standing.SAME)

        return await self._look(declare)

    async def queue(self, queue: Queue) -> Sighting:
        """Look at a queue.

        Raises:
            BusUnavailableError: the connection was lost.
        """
        name = self._names.wire(queue.name)
        arguments: FieldTable = {**queue_arguments(queue, self._names.prefix)}

        async def declare(channel: AbstractChannel, passive: bool) -> Sighting:
            found = await channel.queue_declare(name, durable=True, passive=passive, arguments=arguments)
            return Sighting(
                Standing.SAME, ready=found.message_count or 0, consumers=found.consumer_count or 0
            )

        return await self._look(declare)

    async def _look(self, declare: "_Declare") -> Sighting:
        try:
            seen = await self._ask(declare, passive=True)
        except ChannelNotFoundEntity:
            return Sighting(Standing.MISSING)
        except ChannelLockedResource:
            return Sighting(Standing.THERE)
        # It is there, so that declaring it creates nothing: the broker compares, and says how it differs.
        try:
            await self._ask(declare, passive=False)
        except ChannelPreconditionFailed as error:
            return Sighting(Standing.DIFFERENT, _difference(str(error)), seen.ready, seen.consumers)
        except ChannelAccessRefused:
            return Sighting(Standing.THERE, None, seen.ready, seen.consumers)
        return seen

    async def _ask(self, declare: "_Declare", *, passive: bool) -> Sighting:
        async with self._in_time():
            channel = await self._connection.open_channel(confirms=False)
            try:
                return await declare(channel, passive)
            except ChannelClosed:
                raise
            except LIBRARY_ERRORS as error:
                raise bus_error(error, "asking what is there") from error
            finally:
                await channel.close()

    @asynccontextmanager
    async def _in_time(self) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(_ANSWER_TIMEOUT_S):
                yield
        except TimeoutError:
            raise self._connection.unavailable() from None


_Declare = Callable[[AbstractChannel, bool], Awaitable[Sighting]]


@asynccontextmanager
async def probing(url: str, *, prefix: str, name: str) -> AsyncIterator[BrokerProbe]:
    """Connect to a broker in order to ask; of several nodes, to the first that can be reached.

    Args:
        url: as for `RabbitMQBus`.
        prefix: what names begin with on the broker.
        name: of the connection, in the management UI.

    Raises:
        BusUnavailableError: no node can be reached.
        AccessRefusedError: the broker does not let this user in.
        SettingsError: no broker can be reached by that URL.
    """
    addresses = parse_addresses(url)
    for address in addresses:
        connection = RabbitMQConnection(
            [address],
            name=name,
            limits=ConnectionLimits(),
            tally=Tally(),
            rng=random.Random(),  # noqa: S311  (it spreads pauses)
        )
        try:
            try:
                await connection.first_connection()
            except BusUnavailableError as error:
                if address is addresses[-1]:
                    raise _for_who_asks_once(error) from error
                continue
            yield BrokerProbe(connection, address, prefix)
            return
        finally:
            await connection.close()


def _for_who_asks_once(error: BusUnavailableError) -> BusUnavailableError:
    # A bus would go on trying, and says so.
    fix = (
        error.fix
        if error.fix != UNREACHABLE_FIX
        else "See that the broker runs and can be reached from here."
    )
    return BusUnavailableError(error.message, fix=fix)


def _difference(text: str) -> Difference | None:
    match = _DIFFERENCE.search(text)
    if match is None:
        return None
    return Difference(match["name"], found=_value(match["found"]), wanted=_value(match["wanted"]))


def _value(words: str) -> str:
    quoted = _QUOTED.search(words)
    return quoted[1] if quoted is not None else "not set"
