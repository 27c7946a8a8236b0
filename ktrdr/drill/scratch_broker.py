"""A broker as a drill handles it where the bus has no words for it; confined to the names of one prefix."""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TypeVar

from aiormq.abc import AbstractChannel
from aiormq.exceptions import ChannelNotFoundEntity

from ktrdr.bus.rabbitmq_address import Address, parse_addresses
from ktrdr.bus.rabbitmq_arguments import wire_name
from ktrdr.bus.rabbitmq_connection import ConnectionLimits, RabbitMQConnection
from ktrdr.bus.rabbitmq_errors import LIBRARY_ERRORS, bus_error
from ktrdr.bus.rabbitmq_stats import Tally
from ktrdr.drill.names import prefix_of
from ktrdr.errors import BusError, BusUnavailableError

_CONNECT_WITHIN_S = 5.0
_ANSWER_WITHIN_S = 10.0
_NAME = "ktrdr broker drill"

T = TypeVar("T")
_Question = Callable[[AbstractChannel], Awaitable[object]]


@dataclass(frozen=True, slots=True)
class Server:
    """Who answers at an address."""

    product: str
    version: str

    @property
    def release(self) -> tuple[int, ...]:
        """The version as numbers, as in ``(3, 10, 8)``; empty if it is written otherwise."""
        numbers = self.version.partition("-")[0].partition("+")[0].split(".")
        return tuple(int(number) for number in numbers) if all(map(str.isdigit, numbers)) else ()

    def __str__(self) -> str:
        return f"{self.product} {self.version}"


class ScratchBroker:
    """A connection of the drill's own; each question has a channel, since a no closes it.

    It never publishes, so that a broker that is short of memory goes on listening to it. Names are those of
    the bus, and mean what they mean under the prefix; nothing else can be named.
    """

    def __init__(
        self, connection: RabbitMQConnection, addresses: tuple[Address, ...], prefix: str, server: Server
    ) -> None:
        self._connection = connection
        self._prefix = prefix
        self.addresses = addresses
        """Of the nodes; the user and the virtual host are the same for all."""
        self.server = server
        """Who answered when the drill began."""

    @property
    def user(self) -> str:
        """As whom the drill is here."""
        return self.addresses[0].user

    @property
    def vhost(self) -> str:
        """The virtual host."""
        return self.addresses[0].vhost

    def under(self, prefix: str) -> "ScratchBroker":
        """Return the same connection, confined to another drill's names."""
        return ScratchBroker(self._connection, self.addresses, prefix, self.server)

    def wire(self, name: str) -> str:
        """Return what the broker calls something of the bus; a name as on the broker may be given, too.

        Raises:
            ValueError: it is not the drill's.
        """
        wire = wire_name(name, self._prefix)
        if not wire.startswith(f"{self._prefix}.") or prefix_of(wire) is None:
            raise ValueError(f"'{name}' is not a name of this drill")
        return wire

    async def ask(self, question: Callable[[AbstractChannel], Awaitable[T]], doing: str) -> T:
        """Do something on a channel.

        Args:
            question: what to do.
            doing: the same in words, as in ``deleting a queue``.

        Raises:
            AccessRefusedError: this user may not.
            BusUnavailableError: there is no connection, or nothing is answered.
            BusError: the broker says no.
        """
        try:
            async with asyncio.timeout(_ANSWER_WITHIN_S):
                channel = await self._connection.open_channel(confirms=True)
                try:
                    return await question(channel)
                except LIBRARY_ERRORS as error:
                    raise bus_error(error, doing) from error
                finally:
                    await channel.close()
        except TimeoutError:
            raise BusUnavailableError(
                f"The broker has not answered within {_ANSWER_WITHIN_S:g} s: {doing}."
            ) from None

    async def check_it_answers(self) -> None:
        """Return if it does; raises as `ask` does if not."""

        async def nothing(channel: AbstractChannel) -> None:
            pass

        await self.ask(nothing, "asking whether it is there")

    async def declare_queue(self, name: str, arguments: Mapping[str, str | int]) -> None:
        """Declare a durable queue with any arguments; raises as `ask` does."""
        wire = self.wire(name)
        await self.ask(
            lambda channel: channel.queue_declare(wire, durable=True, arguments={**arguments}),
            f"declaring the queue '{wire}'",
        )

    async def delete_queue(self, name: str) -> None:
        """Delete a queue with what it holds; it may be gone already. Raises as `ask` does."""
        wire = self.wire(name)
        await self.ask(lambda channel: channel.queue_delete(wire), f"deleting the queue '{wire}'")

    async def delete_exchange(self, name: str) -> None:
        """Delete an exchange; it may be gone already. Raises as `ask` does."""
        wire = self.wire(name)
        await self.ask(lambda channel: channel.exchange_delete(wire), f"deleting the exchange '{wire}'")

    async def clear(self, queues: Iterable[str], exchanges: Iterable[str]) -> tuple[str, ...]:
        """Delete what there is of these names on the broker, and return what is left, if anything."""
        kinds = (
            (queues, self.delete_queue, _look_at_queue),
            (exchanges, self.delete_exchange, _look_at_exchange),
        )
        left = [(name, delete, look) for names, delete, look in kinds for name in names]
        stays = []
        while left:
            name, delete, look = left[0]
            try:
                if not await self._goes(name, delete, look):
                    stays.append(name)
            except BusUnavailableError:
                break
            del left[0]
        return (*stays, *(name for name, _, _ in left))

    async def _goes(
        self, name: str, delete: Callable[[str], Awaitable[None]], look: Callable[[str], _Question]
    ) -> bool:
        try:
            await delete(name)
        except BusUnavailableError:
            raise
        except BusError:
            # Who may not delete is told so also of what is not there.
            try:
                await self.ask(look(name), "looking what is left")
            except BusError as error:
                return isinstance(error.__cause__, ChannelNotFoundEntity)
            return False
        return True


def _look_at_queue(name: str) -> _Question:
    return lambda channel: channel.queue_declare(name, passive=True)


def _look_at_exchange(name: str) -> _Question:
    return lambda channel: channel.exchange_declare(name, passive=True)


@asynccontextmanager
async def scratch_broker(url: str, prefix: str) -> AsyncIterator[ScratchBroker]:
    """Connect to a broker.

    Args:
        url: as for `RabbitMQBus`.
        prefix: of all names.

    Raises:
        SettingsError: no broker can be reached by that URL.
        BusUnavailableError: it cannot be reached, or not be trusted.
        AccessRefusedError: it does not let this user in.
    """
    addresses = parse_addresses(url)
    connection = RabbitMQConnection(
        addresses,
        name=_NAME,
        limits=ConnectionLimits(),
        tally=Tally(),
        rng=random.Random(),  # noqa: S311  # it spreads pauses
    )
    try:
        try:
            async with asyncio.timeout(_CONNECT_WITHIN_S):
                said = (await connection.connection()).server_properties
        except TimeoutError:
            raise connection.unavailable() from None
        server = Server(str(said.get("product", "an unknown broker")), str(said.get("version", "?")))
        yield ScratchBroker(connection, addresses, prefix, server)
    finally:
        await connection.close()
