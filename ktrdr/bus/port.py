"""The bus as the rest of the system sees it; `memory` and `rabbitmq` are behind it."""

from typing import Protocol

from ktrdr.bus.topology import Topology
from ktrdr.events.message import Message


class Delivery(Protocol):
    """One message that a consumer holds until it settles it, exactly once."""

    @property
    def message(self) -> Message:
        """The message; not yet decoded, because it may be undecodable."""

    @property
    def queue(self) -> str:
        """The queue that it came from."""

    @property
    def redelivered(self) -> bool:
        """Whether it was delivered before, to anyone."""

    async def ack(self) -> None:
        """Settle it: the work is done, or safely recorded elsewhere."""

    async def nack(self) -> None:
        """Give it back to the head of its queue: it is not this consumer's turn."""

    async def reject(self, reason: str) -> None:
        """Dead-letter it, with the reason in the header ``x-ktrdr-reason``."""


class Consumer(Protocol):
    """A subscription to one queue, read with ``async for``; ends when it is cancelled or the bus closes."""

    def __aiter__(self) -> "Consumer":
        """Return itself."""

    async def __anext__(self) -> Delivery:
        """Wait for the next delivery; at most ``prefetch`` are unsettled at a time."""

    async def cancel(self) -> None:
        """Take no more: undelivered messages go back to the queue; those in hand can still be settled."""


class Bus(Protocol):
    """Publish and consume with RabbitMQ's semantics."""

    async def declare(self, topology: Topology) -> None:
        """Create what is missing; a no-op for what is there already.

        Raises:
            BusError: something of that name is there with other arguments.
        """

    async def publish(
        self, message: Message, *, exchange: str, routing_key: str, mandatory: bool, timeout_s: float
    ) -> None:
        """Return once the broker has confirmed the message.

        Raises:
            UnroutableError: ``mandatory``, and no queue is bound.
            PublishNackedError: a queue refused it.
            PublishTimeoutError: no confirm came in time; the message may or may not be there.
            BusUnavailableError: there is no connection, or it was lost meanwhile.
        """

    async def consume(self, queue: str, *, prefetch: int, consumer_tag: str) -> Consumer:
        """Subscribe to a queue.

        Raises:
            BusError: there is no such queue, or it is another's exclusive one.
        """

    async def close(self) -> None:
        """Cancel consumers, give unsettled deliveries back, and disconnect."""
