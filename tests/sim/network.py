"""Connections to the broker on which anything may come late, twice, or never."""

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from ktrdr.bus.memory import MemoryBus
from ktrdr.bus.memory_consumer import MemoryConsumer, MemoryDelivery
from ktrdr.bus.topology import Topology
from ktrdr.errors import BusError, BusUnavailableError, PublishBlockedError, PublishTimeoutError
from ktrdr.events.message import Message
from tests.sim.event_loop import nowhere
from tests.sim.site import Site

T = TypeVar("T")

_LATENCY_S = 0.005
_LATE_S = 3.0
_LATE = 0.02
"""Of messages."""
_TWICE = 0.02
"""Likewise: as by a publisher that was not sure."""


class Line:
    """One process's connection; a `ktrdr.bus.port.Bus` that loses and finds the broker again.

    Args:
        site: the broker at the other end, and what decides what comes late, twice or never.
    """

    def __init__(self, site: Site) -> None:
        self._site = site
        self._broker = site.broker
        self._rng = site.new_rng()
        self._loop = site.loop
        self._bus: MemoryBus | None = nowhere().run(MemoryBus, site.broker)
        self._under_way: dict[asyncio.Future[None], Callable[[], None]] = {}
        self._consumers: list[_Consumer] = []
        self._thawed, self._unblocked = asyncio.Event(), asyncio.Event()
        self._thawed.set()
        self._unblocked.set()

    # --- what happens to it

    @property
    def is_cut(self) -> bool:
        return self._bus is None

    def cut(self) -> None:
        """Lose the connection. What is under way may arrive all the same; what is in hand comes again."""
        if (bus := self._bus) is None:
            return
        self._bus = None
        self._thawed.set()
        under_way, self._under_way = self._under_way, {}
        for outcome, arrive in under_way.items():
            if self._rng.random() < 0.5 and self._unblocked.is_set():
                arrive()
            _fail(outcome, BusUnavailableError())
        for consumer in self._consumers:
            consumer.lose()
        self._consumers.clear()
        self._loop.create_task(bus.close(), context=nowhere())

    def mend(self) -> None:
        """Have a connection again, and a broker that takes messages."""
        self._unblocked.set()
        self._thawed.set()
        if self._bus is None:
            self._bus = nowhere().run(MemoryBus, self._broker)

    def freeze(self) -> None:
        """Let nothing pass, in either direction, without anybody's being told."""
        self._thawed.clear()

    def block(self) -> None:
        """Have a broker that is short of memory, and takes nothing of what is published."""
        self._unblocked.clear()

    # --- the port

    async def declare(self, topology: Topology) -> None:
        await self._ask(lambda bus: bus.declare(topology))

    async def publish(
        self, message: Message, *, exchange: str, routing_key: str, mandatory: bool, timeout_s: float
    ) -> None:
        bus = self._open
        outcome: asyncio.Future[None] = self._loop.create_future()

        def arrive() -> None:
            self._under_way.pop(outcome, None)
            try:
                self._broker.publish(message, exchange=exchange, routing_key=routing_key, mandatory=mandatory)
            except BusError as error:
                self._later(_fail, outcome, error)
                return
            self._later(_succeed, outcome)
            said = (message, exchange, routing_key)
            self._site.hear(said)
            if self._rng.random() < _TWICE and not self._site.is_calm:
                self._later(self._site.repeat, said)

        async def travel() -> None:
            await asyncio.sleep(self._latency_s())
            await self._thawed.wait()
            await self._unblocked.wait()
            if self._bus is bus and outcome in self._under_way:
                arrive()

        self._under_way[outcome] = arrive
        self._loop.create_task(travel(), context=nowhere())
        try:
            async with asyncio.timeout(timeout_s):
                await outcome
        except TimeoutError:
            # It is still on its way, and may arrive.
            raise (PublishTimeoutError if self._unblocked.is_set() else PublishBlockedError) from None

    async def consume(
        self, queue: str, *, prefetch: int, consumer_tag: str, acknowledge: bool = True
    ) -> "_Consumer":
        source = await self._ask(
            lambda bus: bus.consume(
                queue, prefetch=prefetch, consumer_tag=consumer_tag, acknowledge=acknowledge
            )
        )
        consumer = _Consumer(self, source)
        self._consumers.append(consumer)
        return consumer

    async def get(self, queue: str) -> MemoryDelivery | None:
        return await self._ask(lambda bus: bus.get(queue))

    async def close(self) -> None:
        self.cut()

    # --- for what is on it

    def send(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Have something done at the other end, some time later; never, if the line is cut before."""
        bus = self._open

        async def travel() -> None:
            await asyncio.sleep(self._latency_s())
            await self._thawed.wait()
            if self._bus is bus:
                await work()

        self._loop.create_task(travel(), context=nowhere())

    async def cancel(self, source: MemoryConsumer) -> None:
        """Cancel a consumer at the other end."""
        await self._ask(lambda _bus: source.cancel())

    async def give_back(self, delivery: MemoryDelivery) -> None:
        """Give a message back that nobody has taken."""
        await self._ask(lambda _bus: delivery.nack())

    def pump(self, work: Coroutine[Any, Any, None]) -> None:
        """Have something go on, whoever dies."""
        self._loop.create_task(work, context=nowhere())

    async def arrival(self) -> None:
        """Return when what the broker has sent is here."""
        await asyncio.sleep(self._latency_s())
        await self._thawed.wait()

    async def _ask(self, question: Callable[[MemoryBus], Coroutine[Any, Any, T]]) -> T:
        bus = self._open

        async def travel() -> T:
            await asyncio.sleep(self._latency_s())
            await self._thawed.wait()
            if self._bus is not bus:
                raise BusUnavailableError
            return await question(bus)

        return await self._loop.create_task(travel(), context=nowhere())

    @property
    def _open(self) -> MemoryBus:
        if self._bus is None:
            raise BusUnavailableError
        return self._bus

    def _later(self, callback: Callable[..., None], *args: Any) -> None:
        self._loop.call_later(self._latency_s(), callback, *args, context=nowhere())

    def _latency_s(self) -> float:
        is_late = self._rng.random() < _LATE and not self._site.is_calm
        return self._rng.random() * (_LATE_S if is_late else _LATENCY_S)


class _Consumer:
    """What a queue sends, as it arrives."""

    is_lost = False
    """Whether its connection is."""

    def __init__(self, line: Line, source: MemoryConsumer) -> None:
        self._line = line
        self._source = source
        self._here: deque[MemoryDelivery] = deque()
        self._news = asyncio.Event()
        self._has_ended = False
        line.pump(self._receive())

    def __aiter__(self) -> "_Consumer":
        return self

    async def __anext__(self) -> "_Delivery":
        while not self._here:
            if self._has_ended:
                raise StopAsyncIteration
            self._news.clear()
            await self._news.wait()
        return _Delivery(self._line, self, self._here.popleft())

    async def cancel(self) -> None:
        if self._has_ended:
            return
        self._end()
        here, self._here = list(self._here), deque()
        try:
            await self._line.cancel(self._source)
            for delivery in here:
                await self._line.give_back(delivery)
        except BusUnavailableError:
            return  # The broker has all of it again.

    def lose(self) -> None:
        """End: the connection is gone, and what is in hand cannot be settled."""
        self._here.clear()
        self._end()
        self.is_lost = True

    def _end(self) -> None:
        self._has_ended = True
        self._news.set()

    async def _receive(self) -> None:
        async for delivery in self._source:
            await self._line.arrival()
            if self.is_lost:
                return
            if self._has_ended:
                await delivery.nack()
                continue
            self._here.append(delivery)
            self._news.set()


class _Delivery:
    """A message in hand; what is done with it travels too."""

    def __init__(self, line: Line, consumer: _Consumer, delivery: MemoryDelivery) -> None:
        self._line = line
        self._consumer = consumer
        self._delivery = delivery
        self.message = delivery.message
        self.queue = delivery.queue
        self.redelivered = delivery.redelivered

    async def ack(self) -> None:
        self._settle(self._delivery.ack)

    async def nack(self) -> None:
        self._settle(self._delivery.nack)

    async def reject(self, reason: str) -> None:
        self._settle(lambda: self._delivery.reject(reason))

    def _settle(self, how: Callable[[], Coroutine[Any, Any, None]]) -> None:
        if self._consumer.is_lost:
            raise BusUnavailableError
        self._line.send(how)


def _succeed(outcome: asyncio.Future[None]) -> None:
    if not outcome.done():
        outcome.set_result(None)


def _fail(outcome: asyncio.Future[None], error: BusError) -> None:
    if not outcome.done():
        outcome.set_exception(error)
