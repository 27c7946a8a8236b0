"""Taking one request from the lanes."""

import asyncio
import contextlib
from enum import Enum

import structlog

from ktrdr.bus.port import Bus, Consumer, Delivery
from ktrdr.bus.topology import lane_queue
from ktrdr.errors import BusError, CodecError, UnknownEventError
from ktrdr.events.codec import decode
from ktrdr.events.training import TrainingRequested

_log = structlog.get_logger()


class Settled(Enum):
    """What became of a delivery that is not for this agent."""

    REJECTED = "rejected"
    """Nobody can read it: it is a dead letter."""
    GIVEN_BACK = "given back"
    """Another agent may be able to do what it asks for."""


class Intake:
    """Consumes lanes for one slot, only while it is free: others cannot take a message that is held.

    Args:
        bus: where the lanes are.
        lanes: the preferred one first.
        name: of the consumers, for people: ``host-agent@machine/slot-1``.
    """

    def __init__(self, bus: Bus, *, lanes: tuple[str, ...], name: str) -> None:
        self._bus = bus
        self._lanes = lanes
        self._name = name
        self._leaving: asyncio.Task[None] | None = None

    async def next(self, stopping: asyncio.Event) -> Delivery | None:
        """Wait for a request; None if it is time to stop, or the consumers were lost.

        Of several lanes the first that has one is taken from, the preferred lane if they have at once. The
        lanes are being left when this returns, and what they deliver meanwhile goes back.

        Raises:
            BusError: a lane cannot be consumed.
        """
        await self.leave()
        subscriptions: list[_Subscription] = []
        taken: _Subscription | None = None
        try:
            for lane in self._lanes:
                consumer = await self._bus.consume(lane_queue(lane), prefetch=1, consumer_tag=self._name)
                subscriptions.append(_Subscription(consumer))
            stop = asyncio.create_task(stopping.wait())
            try:
                waits = [subscription.waiting for subscription in subscriptions]
                await asyncio.wait([*waits, stop], return_when=asyncio.FIRST_COMPLETED)
            finally:
                stop.cancel()
            if not stopping.is_set():
                taken = next((each for each in subscriptions if each.delivered is not None), None)
        finally:
            self._leaving = asyncio.create_task(
                _leave(subscriptions, taken), name=f"leave lanes {self._name}"
            )
            if taken is None:
                await self.leave()
        return taken.delivered if taken is not None else None

    async def leave(self) -> None:
        """Wait until nothing is consumed any more."""
        if self._leaving is not None:
            await asyncio.shield(self._leaving)

    async def read(self, delivery: Delivery) -> TrainingRequested | Settled:
        """Return the request in a delivery, or how it was settled instead.

        What cannot be read by anyone is dead-lettered. A request of a version that is not known here is given
        back, for a newer agent to take.
        """
        try:
            event = decode(delivery.message).event
        except UnknownEventError as error:
            if delivery.message.type.startswith(f"{TrainingRequested.type}."):
                _log.warning(
                    "request not understood; this agent is too old for it",
                    operation_id=delivery.message.correlation_id,
                    reason=str(error),
                )
                await self.give_back(delivery)
                return Settled.GIVEN_BACK
            return await self._reject(delivery, str(error))
        except CodecError as error:
            return await self._reject(delivery, str(error))
        if not isinstance(event, TrainingRequested):
            return await self._reject(delivery, f"A {event.type_name()} is no request for an attempt.")
        return event

    # The lanes are left before anything is settled, or they would have room for one more, and deliver it.

    async def acknowledge(self, delivery: Delivery) -> None:
        """Take a request for good. If the connection is lost, it comes again, to who consumes the lane."""
        await self.leave()
        with contextlib.suppress(BusError):
            await delivery.ack()

    async def give_back(self, delivery: Delivery) -> None:
        """Leave a request to others. If the connection is lost, the broker has taken it back already."""
        await self.leave()
        with contextlib.suppress(BusError):
            await delivery.nack()

    async def _reject(self, delivery: Delivery, reason: str) -> Settled:
        message = delivery.message
        _log.warning(
            "request rejected",
            reason=reason,
            operation_id=message.correlation_id,
            message_id=message.message_id,
        )
        await self.leave()
        with contextlib.suppress(BusError):
            await delivery.reject(reason)
        return Settled.REJECTED


class _Subscription:
    """A consumer of one lane, and the wait for what it delivers first."""

    def __init__(self, consumer: Consumer) -> None:
        self._consumer = consumer
        self.waiting = asyncio.create_task(_next_of(consumer))

    @property
    def delivered(self) -> Delivery | None:
        """What it has delivered, if anything; it is still in hand."""
        if not self.waiting.done() or self.waiting.cancelled():
            return None
        return None if isinstance(self.waiting.exception(), BusError) else self.waiting.result()

    async def end(self) -> None:
        """Take no more."""
        try:
            # The wait ends with its consumer, unless it has a delivery already: so none is lost.
            await self._consumer.cancel()
        except BusError:
            self.waiting.cancel()
        await asyncio.wait([self.waiting])


async def _leave(subscriptions: list[_Subscription], taken: _Subscription | None) -> None:
    """End them, and give back what came, other than what was taken."""
    await asyncio.gather(*(subscription.end() for subscription in subscriptions))
    for subscription in subscriptions:
        if subscription is not taken and (delivery := subscription.delivered) is not None:
            with contextlib.suppress(BusError):
                await delivery.nack()


async def _next_of(consumer: Consumer) -> Delivery:
    try:
        return await anext(consumer)
    except StopAsyncIteration:
        # A task cannot raise it.
        raise BusError("the consumer has ended") from None
