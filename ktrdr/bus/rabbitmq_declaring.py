"""Declaring a topology on RabbitMQ."""

from collections.abc import Awaitable, Callable

import structlog
from aiormq.abc import AbstractChannel

from ktrdr.bus.rabbitmq_arguments import WireNames, queue_arguments
from ktrdr.bus.rabbitmq_channels import ChannelPool
from ktrdr.bus.topology import Binding, Exchange, Queue, Topology
from ktrdr.errors import AccessRefusedError, BusError, BusUnavailableError, QueueTakenError

_log = structlog.get_logger()

_Ask = Callable[[AbstractChannel], Awaitable[object]]


class Declarer:
    """Creates what is missing; where this user may not, it makes sure that nothing is."""

    def __init__(self, pool: ChannelPool, names: WireNames) -> None:
        self._pool = pool
        self._names = names

    async def declare(self, topology: Topology) -> None:
        """Declare all of it, in order.

        Raises:
            BusError: as for `ktrdr.bus.port.Bus.declare`.
        """
        for exchange in topology.exchanges:
            await self._declare_exchange(exchange)
        for queue in topology.queues:
            await self._declare_queue(queue)
        for binding in topology.bindings:
            await self._bind(binding)

    async def _declare_exchange(self, exchange: Exchange) -> None:
        name = self._names.wire(exchange.name)

        async def create(channel: AbstractChannel) -> object:
            return await channel.exchange_declare(name, exchange_type=exchange.kind.value, durable=True)

        await self._create_or_find(f"the exchange '{name}'", create, _find_exchange(name))

    async def _declare_queue(self, queue: Queue) -> None:
        name = self._names.wire(queue.name)

        async def create(channel: AbstractChannel) -> object:
            return await channel.queue_declare(
                name,
                durable=not queue.exclusive,
                exclusive=queue.exclusive,
                arguments={**queue_arguments(queue, self._names.prefix)},
            )

        await self._create_or_find(f"the queue '{name}'", create, _find_queue(name))

    async def _bind(self, binding: Binding) -> None:
        queue, exchange = self._names.wire(binding.queue), self._names.wire(binding.exchange)

        async def create(channel: AbstractChannel) -> object:
            return await channel.queue_bind(queue, exchange, binding.routing_key)

        async def find(channel: AbstractChannel) -> None:
            # AMQP does not tell whether a binding is there; what it binds is all that can be looked for.
            await _find_queue(queue)(channel)
            await _find_exchange(exchange)(channel)

        await self._create_or_find(f"the binding of '{queue}' to '{exchange}'", create, find)

    async def _create_or_find(self, what: str, create: _Ask, find: _Ask) -> None:
        try:
            async with self._pool.asking(f"the declaration of {what}") as channel:
                await create(channel.amqp)
        except AccessRefusedError as refused:
            try:
                async with self._pool.asking(f"a look at {what}") as channel:
                    await find(channel.amqp)
            except (BusUnavailableError, AccessRefusedError, QueueTakenError):
                raise
            except BusError as missing:
                raise AccessRefusedError(
                    f"The broker does not have {what}, and does not let this user create it.",
                    fix="Have an administrator of the broker run: ktrdr broker setup",
                ) from missing
            _log.debug("accepted as it is", what=what, reason=refused.message)


def _find_exchange(name: str) -> _Ask:
    return lambda channel: channel.exchange_declare(name, passive=True)


def _find_queue(name: str) -> _Ask:
    return lambda channel: channel.queue_declare(name, passive=True)
