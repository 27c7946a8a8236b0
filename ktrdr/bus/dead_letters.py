"""What a dead letter says of its death; the same on every transport."""

from dataclasses import replace
from enum import StrEnum

from ktrdr.events.message import Message, header_text

REASON_HEADER = "x-ktrdr-reason"
"""Why: the words of the consumer that rejected it, else a `DeathCause`."""
FROM_QUEUE_HEADER = "x-ktrdr-from-queue"
"""Where it died last."""
FROM_USER_HEADER = "x-ktrdr-from-user"
"""Who had published what a consumer rejected, as the broker has checked it: the letter is by the consumer."""


class DeathCause(StrEnum):
    """Why a message left a queue without being acknowledged; the values are RabbitMQ's."""

    EXPIRED = "expired"
    """Its expiration passed before a consumer had it."""
    MAX_LENGTH = "maxlen"
    """It was the oldest of a full queue."""
    DELIVERY_LIMIT = "delivery_limit"
    """It was given back too often."""
    REJECTED = "rejected"
    """A consumer rejected it; the reason has its words."""


def dead_letter(message: Message, *, reason: str, queue: str) -> Message:
    """Return the message as it is dead-lettered: with its story, and no longer expiring."""
    headers = {**message.headers, REASON_HEADER: header_text(reason), FROM_QUEUE_HEADER: queue}
    headers.pop(FROM_USER_HEADER, None)
    if message.user_id is not None:
        headers[FROM_USER_HEADER] = message.user_id
    return replace(message, headers=headers, expiration_s=None)
