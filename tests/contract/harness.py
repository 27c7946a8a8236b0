"""What a transport brings to be tested against the contract of the port."""

import asyncio
import secrets
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar

import aiormq

from ktrdr.bus.memory import MAX_MESSAGE_BYTES, MemoryBroker, MemoryBus
from ktrdr.bus.port import Bus, Consumer
from ktrdr.bus.rabbitmq import RabbitMQBus
from ktrdr.bus.rabbitmq_arguments import wire_name
from ktrdr.bus.topology import Binding, Exchange, ExchangeKind, Queue, Topology, shared_topology
from ktrdr.events.message import Message
from tests.broker.broker import Broker
from tests.contract.virtual_clock import VirtualClock, run_everything

FindBroker = Callable[[], Broker]


class BrokerHarness(ABC):
    """A broker, and what the tests need to do to it from outside.

    To put a transport under the contract, derive a class and add it to `TRANSPORTS`.
    """

    transport: ClassVar[str]
    max_message_bytes: ClassVar[int] = MAX_MESSAGE_BYTES
    """The broker refuses a message whose body is larger."""
    nack_counts_towards_the_delivery_limit = True
    """RabbitMQ up to 4.2 and the memory transport: yes; RabbitMQ 4.3: no."""

    def __init__(self, find_broker: FindBroker) -> None:
        self.find_broker = find_broker
        """Returns a RabbitMQ, for those who need one."""

    async def start(self) -> None:  # noqa: B027  # most have nothing to start
        """Make the broker ready; names of queues and exchanges must be fresh, or made so by `unique`."""

    async def stop(self) -> None:  # noqa: B027  # most have nothing to stop
        """Take away what the test left in the broker."""

    @abstractmethod
    async def connect(self) -> Bus:
        """Return a new connection to the broker; whoever asks closes it."""

    @abstractmethod
    def unique(self, name: str) -> str:
        """Return a name that no other test uses."""

    @abstractmethod
    async def pass_time(self, seconds: float) -> None:
        """Let the time pass by which messages expire."""

    @abstractmethod
    async def be_quiet(self) -> None:
        """Wait until the broker has done what it will do without being asked."""


class MemoryHarness(BrokerHarness):
    """The in-memory broker under a virtual clock."""

    transport = "memory"

    def __init__(self, find_broker: FindBroker) -> None:
        super().__init__(find_broker)
        self.clock = VirtualClock()
        self.broker = MemoryBroker(self.clock)

    async def connect(self) -> Bus:
        return MemoryBus(self.broker)

    def unique(self, name: str) -> str:
        return name

    async def pass_time(self, seconds: float) -> None:
        await self.clock.advance(seconds)

    async def be_quiet(self) -> None:
        await run_everything()


class RabbitMQHarness(BrokerHarness):
    """A real RabbitMQ, where each test has a prefix of its own."""

    transport = "rabbitmq"

    def __init__(self, find_broker: FindBroker) -> None:
        super().__init__(find_broker)
        self._prefix = f"contract-{secrets.token_hex(6)}"
        self._url = ""
        self._names: set[str] = set()
        self._probe: QuietProbe | None = None

    async def start(self) -> None:
        self._url = self.find_broker().url
        async with aiormq.connect(self._url) as connection:
            major, minor, *_ = str(connection.server_properties["version"]).split(".")
        self.nack_counts_towards_the_delivery_limit = (int(major), int(minor)) < (4, 3)
        for each in (shared_topology().exchanges, shared_topology().queues):
            self._names.update(declared.name for declared in each)

    async def stop(self) -> None:
        if self._probe is not None:
            await self._probe.stop()
        async with aiormq.connect(self._url) as connection:
            channel = await connection.channel()
            for name in sorted(self._names):
                await channel.queue_delete(wire_name(name, self._prefix))
                await channel.exchange_delete(wire_name(name, self._prefix))

    async def connect(self) -> RabbitMQBus:
        return RabbitMQBus(self._url, name="contract", prefix=self._prefix)

    def unique(self, name: str) -> str:
        self._names.add(f"ktrdr.{name}")
        return f"ktrdr.{name}"

    async def pass_time(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    async def be_quiet(self) -> None:
        if self._probe is None:
            self._probe = QuietProbe(await self.connect(), self.unique)
            await self._probe.start()
        await self._probe.be_quiet()


class QuietProbe:
    """Knows when a broker is quiet: what came later, and had as far to go, has arrived.

    A message takes the longest way that there is: it expires in one queue, and is dead-lettered to another.
    """

    _ROUNDS = 3

    def __init__(self, bus: Bus, unique: Callable[[str], str]) -> None:
        self._bus = bus
        self._first, self._last = unique("quiet.first"), unique("quiet.last")
        self._arrived: Consumer | None = None

    async def start(self) -> None:
        await self._bus.declare(
            Topology(
                (Exchange(self._last, ExchangeKind.FANOUT),),
                (Queue(self._first, dead_letter_exchange=self._last), Queue(self._last)),
                (Binding(self._last, self._last),),
            )
        )
        self._arrived = await self._bus.consume(self._last, prefetch=1, consumer_tag="quiet")

    async def be_quiet(self) -> None:
        assert self._arrived is not None
        for _ in range(self._ROUNDS):
            await self._bus.publish(
                Message(b"", "quiet", "test.message.v1", expiration_s=0.0),
                exchange="",
                routing_key=self._first,
                mandatory=True,
                timeout_s=60.0,
            )
            await (await anext(self._arrived)).ack()

    async def stop(self) -> None:
        await self._bus.close()


TRANSPORTS: tuple[type[BrokerHarness], ...] = (MemoryHarness, RabbitMQHarness)
