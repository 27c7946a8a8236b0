"""What exchanges and queues are called on the wire, and with which arguments queues are declared."""

from collections.abc import Mapping

from ktrdr.bus.topology import DEFAULT_EXCHANGE, Queue, QueueKind

_OWN = "ktrdr"
_STREAM_BYTES_PER_MESSAGE = 10 * 1024
"""RabbitMQ bounds a stream in bytes, not in messages: an event has 1 KiB, but a model may be in one."""
_STREAM_SEGMENTS = 10
"""A stream forgets one segment at a time."""


def queue_arguments(queue: Queue, prefix: str = _OWN) -> Mapping[str, str | int]:
    """Return the arguments to declare a queue with; RabbitMQ 3.10 and every later one knows them all.

    The kind is always named: the default is the broker's affair. What a quorum queue dead-letters is kept
    until the dead-letter exchange has confirmed it, unless the queue is bounded: that takes
    ``reject-publish``, and a full queue is to drop its oldest. A stream's ``max_length`` is taken as 10 KiB
    for each message.
    """
    arguments: dict[str, str | int] = {"x-queue-type": queue.kind.value}
    if queue.kind is QueueKind.STREAM:
        if queue.max_length is not None:
            size = queue.max_length * _STREAM_BYTES_PER_MESSAGE
            arguments["x-max-length-bytes"] = size
            arguments["x-stream-max-segment-size-bytes"] = max(1, size // _STREAM_SEGMENTS)
        return arguments
    if queue.delivery_limit is not None:
        arguments["x-delivery-limit"] = queue.delivery_limit
    if queue.dead_letter_exchange is not None:
        arguments["x-dead-letter-exchange"] = wire_name(queue.dead_letter_exchange, prefix)
    if queue.max_length is not None:
        arguments["x-max-length"] = queue.max_length
        arguments["x-overflow"] = "drop-head"
    elif queue.dead_letter_exchange is not None and queue.kind is QueueKind.QUORUM:
        arguments["x-dead-letter-strategy"] = "at-least-once"
        arguments["x-overflow"] = "reject-publish"
    return arguments


def wire_name(name: str, prefix: str = _OWN) -> str:
    """Return what the broker calls an exchange or queue: the prefix replaces the leading ``ktrdr``."""
    own = f"{_OWN}."
    return f"{prefix}.{name.removeprefix(own)}" if name.startswith(own) else name


class WireNames:
    """Names on the wire and back, with the prefix of one installation."""

    def __init__(self, prefix: str = _OWN) -> None:
        self.prefix = prefix
        self._there = f"{prefix}."

    def wire(self, name: str) -> str:
        """Return what the broker calls it."""
        return wire_name(name, self.prefix)

    def own(self, name: str) -> str:
        """Return what we call what the broker calls so."""
        return f"{_OWN}.{name.removeprefix(self._there)}" if name.startswith(self._there) else name

    def routing_key(self, exchange: str, key: str) -> str:
        """Return the routing key for an exchange: for the default exchange it names a queue."""
        return self.wire(key) if exchange == DEFAULT_EXCHANGE else key
