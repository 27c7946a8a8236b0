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
    """Whole seconds, as AMQP has it; the header ``cloudEvents:time`` is exact."""
    content_type: str = "application/msgpack"
    content_encoding: str | None = None
    """``zstd``, or None for a body that is not compressed."""
    expiration_s: float | None = None
    """Dead-lettered when it has been in a queue for so long."""
    persistent: bool = True
    headers: Mapping[str, HeaderValue] = field(default_factory=dict)
    """CloudEvents attributes, ``traceparent`` and a readable ``summary``."""
    user_id: str | None = field(default=None, compare=False)
    """The broker's user who published it, checked by the broker; set on delivery, where there is a broker."""


MAX_HEADER_CHARACTERS = 500


def header_text(text: str, limit: int = MAX_HEADER_CHARACTERS) -> str:
    """Return text as one line that a header can hold; all headers must fit one frame of AMQP."""
    # A character of which a line is made, or a surrogate that UTF-8 has no bytes for, is not printable.
    line = " ".join("".join(c if c.isprintable() else " " for c in text[: 4 * limit]).split())
    return line if len(line) <= limit else line[: limit - 1] + "…"
