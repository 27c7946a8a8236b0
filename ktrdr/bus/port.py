"""The bus as the rest of the system sees it; `memory` and `rabbitmq` are behind it."""

from typing import Protocol

from ktrdr.bus.topology import Topology
from ktrdr.events.message import Message


class Delivery(Protocol):
    """One message that a consumer holds until it settles it, exactly once.

    Settling it again, or after the bus was closed, raises `BusError`.
    """

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
        """Give it back to the head of its queue: it is not this consumer's turn.

        Given back more often than its queue's ``delivery_limit``, it is dead-lettered. A lost connection
        counts too; whether this does is up to the broker (RabbitMQ 4.3 does not count it).
        """

    async def reject(self, reason: str) -> None:
        """Dead-letter it, with the reason in the header ``x-ktrdr-reason``.

        It is lost, and counted, if its queue names no exchange for it or no queue is bound there. Settling a
        stream's message, in whatever way, only asks for the next one.
        """


class Consumer(Protocol):
    """A subscription to one queue, read with ``async for``.

    It ends when it is cancelled, when the bus closes, and when it is lost: with the connection, with its
    queue, or because the broker took it away. Who wants to go on declares, and subscribes, again. What is in
    hand then comes again, to whoever consumes.

    Consumers of one queue take turns. Each consumer of a stream gets every message from its first on.
    """

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
            QueueTakenError: a queue is another connection's exclusive one.
            BusClosedError: this bus was closed.
            BusUnavailableError: there is no connection.
            BusError: something of that name is there with other arguments.
        """

    async def publish(
        self, message: Message, *, exchange: str, routing_key: str, mandatory: bool, timeout_s: float
    ) -> None:
        """Return once the broker has confirmed the message.

        `DEFAULT_EXCHANGE` takes it to the queue that the routing key names.

        Raises:
            UnroutableError: ``mandatory``, and no queue is bound.
            PublishNackedError: a queue refused it, or it is too large for the broker.
            PublishTimeoutError: no confirm came in time; the message may or may not be there.
            BusUnavailableError: there is no connection, or it was lost meanwhile.
            BusError: there is no such exchange.
        """

    async def consume(
        self, queue: str, *, prefetch: int, consumer_tag: str, acknowledge: bool = True
    ) -> Consumer:
        """Subscribe to a queue.

        Args:
            queue: its name.
            prefetch: how many deliveries may be unsettled.
            consumer_tag: the consumer's name, for people.
            acknowledge: False for what may be lost: the queue forgets each message as it sends it, and sends
                on. Of those that wait here to be read, the newest ``prefetch`` are kept. `Delivery.ack` and
                `Delivery.nack` then do nothing, and `Delivery.reject` dead-letters a copy.

        Raises:
            QueueTakenError: it is another connection's exclusive queue.
            BusError: there is no such queue, or it is a stream, which wants to be acknowledged.
            ValueError: ``prefetch`` is less than 1.
        """

    async def get(self, queue: str) -> Delivery | None:
        """Take the next message without subscribing; None if none is ready. For people who look into a queue.

        Raises:
            BusError: there is no such queue, or it is another's exclusive one, or a stream.
        """

    async def close(self) -> None:
        """Cancel consumers, give unsettled deliveries back, and disconnect."""
