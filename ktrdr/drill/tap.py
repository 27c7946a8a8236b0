"""Listening in on what backend and agents say to each other under the scratch prefix."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TypeVar

from ktrdr.bus.port import Bus, Consumer
from ktrdr.bus.topology import CONTROL, EVENTS, LANES, REQUESTS, Binding, Queue, QueueKind, Topology
from ktrdr.drill.names import TAP
from ktrdr.drill.results import BrokenPromiseError
from ktrdr.errors import BusError, CodecError
from ktrdr.events import Event, decode
from ktrdr.events.message import Message

_PREFETCH = 100
_KINDS = ("accepted", "model_ready", "failed", "cancelled")

E = TypeVar("E", bound=Event)


@dataclass(frozen=True, slots=True)
class Heard:
    """One message, in the order in which they came."""

    event: Event
    message: Message


class Tap:
    """Remembers requests, orders, answers, and what agents say of attempts, except progress."""

    def __init__(self) -> None:
        self._heard: list[Heard] = []
        self._news = asyncio.Event()

    def all_of(self, kind: type[E], operation_id: str) -> list[E]:
        """Return the events of a type that are about an operation."""
        events = (heard.event for heard in self._heard)
        return [event for event in events if isinstance(event, kind) and _is_about(event, operation_id)]

    def message_of(self, event: Event) -> Message:
        """Return the message in which an event came."""
        return next(heard.message for heard in self._heard if heard.event is event)

    async def wait_for(
        self,
        kind: type[E],
        operation_id: str,
        *,
        within_s: float,
        what: str,
        where: Callable[[E], bool] = lambda event: True,
        count: int = 1,
    ) -> E:
        """Return the last of so many events of a type, about an operation, that fulfil a condition.

        Raises:
            BrokenPromiseError: there were not so many in time.
        """
        try:
            async with asyncio.timeout(within_s):
                while True:
                    found = [event for event in self.all_of(kind, operation_id) if where(event)]
                    if len(found) >= count:
                        return found[count - 1]
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            raise BrokenPromiseError(f"Waited {within_s:g} s for {what}, in vain.") from None

    async def listen(self, consumer: Consumer) -> None:
        """Remember what comes, until the consumer ends."""
        with contextlib.suppress(BusError):
            async for delivery in consumer:
                with contextlib.suppress(CodecError):
                    self._heard.append(Heard(decode(delivery.message).event, delivery.message))
                    self._news.set()
                await delivery.ack()


@asynccontextmanager
async def tapping(bus: Bus) -> AsyncIterator[Tap]:
    """Listen in, as long as the block runs; the exchanges must be there.

    Raises:
        BusError: the broker does not allow it.
    """
    keys = [(REQUESTS, lane) for lane in LANES]
    keys += [(EVENTS, f"training.*.{kind}") for kind in _KINDS]
    keys.append((CONTROL, "#"))
    await bus.declare(
        Topology(
            queues=(Queue(TAP, QueueKind.CLASSIC, exclusive=True),),
            bindings=tuple(Binding(exchange, TAP, key) for exchange, key in keys),
        )
    )
    consumer = await bus.consume(TAP, prefetch=_PREFETCH, consumer_tag="drill/tap")
    tap = Tap()
    listening = asyncio.create_task(tap.listen(consumer), name="drill tap")
    try:
        yield tap
    finally:
        with contextlib.suppress(BusError):
            await consumer.cancel()
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)


def _is_about(event: Event, operation_id: str) -> bool:
    return getattr(event, "operation_id", None) == operation_id
