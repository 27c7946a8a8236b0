"""What a transport brings to be tested against the contract of the port."""

from abc import ABC, abstractmethod
from typing import ClassVar

from ktrdr.bus.memory import MAX_MESSAGE_BYTES, MemoryBroker, MemoryBus
from ktrdr.bus.port import Bus
from tests.contract.virtual_clock import VirtualClock, run_everything


class BrokerHarness(ABC):
    """A broker, and what the tests need to do to it from outside.

    To put a transport under the contract, derive a class and add it to `TRANSPORTS`.
    """

    transport: ClassVar[str]
    max_message_bytes: ClassVar[int]
    """The broker refuses a message whose body is larger."""
    nack_counts_towards_the_delivery_limit: ClassVar[bool]
    """RabbitMQ up to 4.2 and the memory transport: yes; RabbitMQ 4.3: no."""

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
    max_message_bytes = MAX_MESSAGE_BYTES
    nack_counts_towards_the_delivery_limit = True

    def __init__(self) -> None:
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


TRANSPORTS: tuple[type[BrokerHarness], ...] = (MemoryHarness,)
