"""The bus over RabbitMQ 3.10 or later: between processes and machines."""

import asyncio
import random
from collections import Counter

import structlog

from ktrdr.bus.dead_letters import dead_letter
from ktrdr.bus.rabbitmq_address import parse_addresses
from ktrdr.bus.rabbitmq_arguments import WireNames
from ktrdr.bus.rabbitmq_channels import ChannelPool, PooledChannel
from ktrdr.bus.rabbitmq_connection import ConnectionLimits, RabbitMQConnection
from ktrdr.bus.rabbitmq_consumer import RabbitMQConsumer
from ktrdr.bus.rabbitmq_declaring import Declarer
from ktrdr.bus.rabbitmq_decoding import tolerate_hostile_properties
from ktrdr.bus.rabbitmq_delivery import Hand, RabbitMQDelivery
from ktrdr.bus.rabbitmq_getting import Getter
from ktrdr.bus.rabbitmq_publishing import Publisher
from ktrdr.bus.rabbitmq_stats import BusStats, Tally
from ktrdr.bus.rabbitmq_watchdog import Watchdog
from ktrdr.bus.topology import Queue, QueueKind, Topology
from ktrdr.errors import BusClosedError, BusError
from ktrdr.events.message import Message

_log = structlog.get_logger()

_REJECT_TIMEOUT_S = 5.0

tolerate_hostile_properties()


class RabbitMQBus:
    """Two connections to a RabbitMQ; implements `ktrdr.bus.port.Bus`.

    One publishes; the other declares and consumes, because a broker that is short of memory no longer listens
    to a connection that publishes, and because an exclusive queue is its connection's. Both are made in the
    background, from the start, and again whenever they are lost. Until there is one, what needs it waits: a
    publish for its time, everything else for `ConnectionLimits.request_s`. A user or password that is refused
    is told at once, and tried again slowly.

    What was declared is remembered to know where a queue's rejects go, and never taken as a reason not to
    declare again. Must be made in a running event loop.

    Args:
        url: as in `parse_addresses`.
        name: who this is, for people: ``host-agent@machine``.
        prefix: replaces the leading ``ktrdr`` of the names of exchanges and queues on the broker.
        limits: of time, for both connections.
        max_unconfirmed: publishes that may be in flight at once.
        watchdog_interval_s: between two looks at whether consumers are still there.
        rng: spreads the pauses between attempts to connect.

    Raises:
        SettingsError: the URL cannot be used.
    """

    def __init__(
        self,
        url: str,
        *,
        name: str,
        prefix: str = "ktrdr",
        limits: ConnectionLimits | None = None,
        max_unconfirmed: int = 200,
        watchdog_interval_s: float = 30.0,
        rng: random.Random | None = None,
    ) -> None:
        addresses = parse_addresses(url)
        self._limits = limits or ConnectionLimits()
        self._names = WireNames(prefix)
        self._tally = Tally()
        rng = rng or random.Random()  # noqa: S311  # not for secrets
        self._publishing, self._consuming = (
            RabbitMQConnection(
                addresses, name=f"{name} {role}", limits=self._limits, tally=self._tally, rng=rng
            )
            for role in ("publisher", "consumer")
        )
        self._publisher = Publisher(
            self._publishing,
            names=self._names,
            user=addresses[0].user,
            max_unconfirmed=max_unconfirmed,
            tally=self._tally,
        )
        self._pool = ChannelPool(self._consuming)
        self._declarer = Declarer(self._pool, self._names)
        self._getter = Getter(self._pool, self._new_hand)
        self._declared: dict[str, Queue] = {}
        self._consumers: set[RabbitMQConsumer] = set()
        self._watchdog = asyncio.create_task(
            Watchdog(
                self._pool,
                names=self._names,
                consumers=lambda: tuple(self._consumers),
                interval_s=watchdog_interval_s,
                tally=self._tally,
            ).run(),
            name=f"rabbitmq {name} watchdog",
        )
        self._closing: asyncio.Task[None] | None = None

    @property
    def is_connected(self) -> bool:
        """Whether both connections are there, as far as is known."""
        return self._publishing.is_connected and self._consuming.is_connected

    @property
    def is_blocked(self) -> bool:
        """Whether the broker takes no messages, for lack of memory or disk; known once it has refused one."""
        return self._publishing.is_blocked

    @property
    def stats(self) -> BusStats:
        """What has happened so far."""
        return self._tally.stats

    async def wait_until_connected(self, timeout_s: float) -> None:
        """Return once both connections are there.

        Raises:
            AccessRefusedError: the broker does not let this user in.
            BusUnavailableError: it could not be reached in time; the error says why.
            BusClosedError: this bus was closed.
        """
        try:
            async with asyncio.timeout(timeout_s):
                await self._publishing.connection()
                await self._consuming.connection()
        except TimeoutError as error:
            raise self._publishing.unavailable() from error

    async def declare(self, topology: Topology) -> None:
        """Create what is missing; what this user may not create must be there."""
        self._require_open()
        self._declared.update((queue.name, queue) for queue in topology.queues)
        await self._declarer.declare(topology)

    async def publish(
        self, message: Message, *, exchange: str, routing_key: str, mandatory: bool, timeout_s: float
    ) -> None:
        """Return once the broker has confirmed the message; the time limit includes all waiting."""
        self._require_open()
        await self._publisher.publish(
            message, exchange=exchange, routing_key=routing_key, mandatory=mandatory, timeout_s=timeout_s
        )

    async def consume(
        self, queue: str, *, prefetch: int, consumer_tag: str, acknowledge: bool = True
    ) -> RabbitMQConsumer:
        """Subscribe to a queue."""
        self._require_open()
        if prefetch < 1:
            raise ValueError(f"prefetch is {prefetch}, but a consumer takes at least 1 message at a time")
        if self._kind(queue) is QueueKind.STREAM and not acknowledge:
            raise BusError(f"What the stream '{queue}' sends has to be acknowledged.")
        wire_queue = self._names.wire(queue)
        async with self._pool.borrowing(f"consuming from '{wire_queue}'") as channel:
            consumer = RabbitMQConsumer(
                self._new_hand(channel, queue, acknowledge=acknowledge),
                pool=self._pool,
                prefetch=prefetch,
                tag=consumer_tag,
                cancel_within_s=self._limits.request_s,
                on_end=self._ended,
                on_drop=lambda: self._tally.count("deliveries_dropped"),
            )
            await consumer.subscribe(wire_queue)
        if self._closing is not None:
            consumer.stop()
        elif not consumer.has_ended:
            self._consumers.add(consumer)
        return consumer

    async def get(self, queue: str) -> RabbitMQDelivery | None:
        """Take the next message without subscribing; None if none is ready.

        Of a stream that this bus has not declared, asking ends the connection.
        """
        self._require_open()
        if self._kind(queue) is QueueKind.STREAM:
            raise BusError(f"The stream '{queue}' can only be consumed.")
        return await self._getter.get(queue, self._names.wire(queue))

    async def close(self) -> None:
        """Cancel consumers, give unsettled deliveries back, and disconnect: in two seconds at most."""
        if self._closing is None:
            self._closing = asyncio.create_task(self._close(), name="rabbitmq close")
        await asyncio.shield(self._closing)

    async def _close(self) -> None:
        self._watchdog.cancel()
        consumers = tuple(self._consumers)
        of_queue = Counter(consumer.queue for consumer in consumers)
        for consumer in consumers:
            consumer.stop()
        # What one gives back would go to another of ours that has a moment to live, and count twice.
        await asyncio.gather(
            *(each.withdraw(self._limits.close_s) for each in consumers if of_queue[each.queue] > 1)
        )
        await asyncio.gather(self._publishing.close(), self._consuming.close())
        await asyncio.gather(self._publisher.close(), self._pool.close())
        await asyncio.wait((self._watchdog,))

    def _require_open(self) -> None:
        if self._closing is not None:
            raise BusClosedError("This bus was closed.")

    def _kind(self, queue: str) -> QueueKind | None:
        return self._declared[queue].kind if queue in self._declared else None

    def _new_hand(self, channel: PooledChannel, queue: str, *, acknowledge: bool = True) -> Hand:
        return Hand(
            channel,
            queue,
            self._kind(queue),
            acknowledge=acknowledge,
            pool=self._pool,
            names=self._names,
            explain=self._explain,
        )

    def _ended(self, consumer: RabbitMQConsumer, was_lost: bool) -> None:
        self._consumers.discard(consumer)
        if was_lost:
            self._tally.count("consumers_lost")

    async def _explain(self, delivery: RabbitMQDelivery, reason: str) -> bool:
        """Publish what is rejected with its reason; False if the broker must do without."""
        spec = self._declared.get(delivery.queue)
        exchange = (spec.reject_exchange or spec.dead_letter_exchange) if spec is not None else None
        if exchange is None:
            return False
        try:
            await self._publisher.publish(
                dead_letter(delivery.message, reason=reason, queue=self._names.wire(delivery.queue)),
                exchange=exchange,
                routing_key=delivery.routing_key,
                mandatory=True,
                timeout_s=_REJECT_TIMEOUT_S,
            )
        except BusClosedError:
            raise
        except BusError as error:
            self._tally.count("rejects_unexplained")
            _log.warning("rejected without its reason", queue=delivery.queue, reason=reason, error=str(error))
            return False
        return True
