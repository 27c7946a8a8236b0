"""A message as AMQP sees it: a body and named properties. Both transports carry exactly this."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

HeaderValue = str | int | float | bool


@dataclass(frozen=True, slots=True)
class Message:
    """What is published and delivered; the property names are AMQP's."""

    body: bytes
    message_id: str
    """The event id (UUIDv7): equal in a message that is published again."""
    type: str
    """As in ``ktrdr.training.requested.v1``."""
    correlation_id: str | None = None
    """The operation id."""
    app_id: str | None = None
    """Who says it: ``backend@host`` or ``host-agent@machine``."""
    timestamp: datetime | None = None
    content_type: str = "application/msgpack"
    content_encoding: str | None = None
    """``zstd``, or None for a body that is not compressed."""
    expiration_s: float | None = None
    """Dead-lettered when it has been in a queue for so long."""
    persistent: bool = True
    headers: Mapping[str, HeaderValue] = field(default_factory=dict)
    """CloudEvents attributes, ``traceparent`` and a readable ``summary``."""
