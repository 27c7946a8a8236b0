"""Events to messages and back: msgpack, compressed where it pays, every size checked first."""

import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import msgpack
from pydantic import ValidationError

from ktrdr.errors import OversizedError, UndecodableError, UnencodableError, UnknownEventError
from ktrdr.events.base import Event, OperationEvent
from ktrdr.events.compression import compress, decompress
from ktrdr.events.message import HeaderValue, Message, header_text
from ktrdr.events.structure import check_structure
from ktrdr.events.training import EVENT_TYPES

CONTENT_TYPE = "application/msgpack"
MAX_BODY_BYTES = 12 * 1024 * 1024
"""Of a message as published: an inline model is 8 MiB at most; RabbitMQ 4 refuses over 16 MiB."""
MAX_CONTENT_BYTES = 16 * 1024 * 1024
"""Of a body after decompression. An inline model is compressed by itself and counts as it is."""
_COMPRESS_FROM_BYTES = 1024

_BY_TYPE_NAME = {event_type.type_name(): event_type for event_type in EVENT_TYPES}
_TYPE_NAME = re.compile(r"(?P<type>[a-z0-9_.]+)\.v(?P<version>[0-9]{1,9})")


@dataclass(frozen=True, slots=True)
class Envelope:
    """An event with what is known about its sending."""

    event: Event
    event_id: str
    """UUIDv7, equal when the event is sent again: the key of the inbox."""
    sender: str
    occurred_at: datetime
    traceparent: str | None = None
    message: Message | None = field(default=None, compare=False, repr=False)
    """What it was received in; None if it was not."""

    @property
    def operation_id(self) -> str | None:
        """The operation that the event is about, if it is about one."""
        return self.event.operation_id if isinstance(self.event, OperationEvent) else None


@dataclass(frozen=True, slots=True)
class Packed:
    """An event as the body of a message."""

    body: bytes
    encoding: str | None
    """``zstd``, if it is compressed."""


def pack(event: Event) -> Packed:
    """Return the body of any message that carries the event.

    Raises:
        OversizedError: it would be over `MAX_BODY_BYTES`, or hold too many values.
        UnencodableError: a field holds what msgpack or UTF-8 has no form for.
    """
    body = _packed(event)
    encoding = None
    # Weights hardly compress, and an inline model is compressed already: try, and keep it only if it pays.
    if len(body) >= _COMPRESS_FROM_BYTES:
        compressed = compress(body)
        if len(compressed) < 0.9 * len(body):
            body, encoding = compressed, "zstd"
    if len(body) > MAX_BODY_BYTES:
        raise OversizedError(f"A {event.type_name()} of {len(body):,} bytes is over {MAX_BODY_BYTES:,}.")
    return Packed(body, encoding)


def encode(envelope: Envelope, *, expiration_s: float | None = None, packed: Packed | None = None) -> Message:
    """Return the message that carries an event.

    Args:
        envelope: the event, and what is to be known about its sending.
        expiration_s: dead-letter it if nobody has taken it after so long.
        packed: the event, if `pack` was called before.

    Raises:
        CodecError: as `pack` does.
    """
    event = envelope.event
    packed = packed or pack(event)
    headers: dict[str, HeaderValue] = {
        "cloudEvents:id": envelope.event_id,
        "cloudEvents:source": envelope.sender,
        "cloudEvents:specversion": "1.0",
        "cloudEvents:type": event.type_name(),
        "cloudEvents:time": envelope.occurred_at.astimezone(UTC).isoformat(),
        "summary": header_text(event.summary()),
    }
    if isinstance(event, OperationEvent):
        headers["cloudEvents:subject"] = event.operation_id
        headers["attempt"] = event.attempt
    if envelope.traceparent:
        headers["traceparent"] = envelope.traceparent
    return Message(
        body=packed.body,
        message_id=envelope.event_id,
        type=event.type_name(),
        correlation_id=envelope.operation_id,
        app_id=envelope.sender,
        timestamp=envelope.occurred_at.astimezone(UTC).replace(microsecond=0),
        content_type=CONTENT_TYPE,
        content_encoding=packed.encoding,
        expiration_s=expiration_s,
        persistent=event.durable,
        headers=headers,
    )


def decode(message: Message) -> Envelope:
    """Return the event that a message carries; nothing of it is trusted before it is checked.

    Raises:
        OversizedError: the body, or what it would decompress or unpack to, is over a limit.
        UnknownEventError: the type or its version is not known here.
        UndecodableError: the body is not what it says it is.
    """
    if len(message.body) > MAX_BODY_BYTES:
        raise OversizedError(f"A body of {len(message.body):,} bytes is over {MAX_BODY_BYTES:,}.")
    event_type = _event_type(message.type)
    if message.content_type != CONTENT_TYPE:
        found = header_text(message.content_type)
        raise UndecodableError(f"The content type is '{found}', not '{CONTENT_TYPE}'.")
    if message.content_encoding == "zstd":
        content = decompress(message.body, limit=MAX_CONTENT_BYTES)
    elif message.content_encoding is None:
        content = message.body
    else:
        raise UndecodableError(
            f"The content encoding '{header_text(message.content_encoding)}' is not known."
        )
    fields = _unpack(content)
    try:
        event = event_type.model_validate(fields)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        where = header_text(".".join(str(part) for part in first["loc"])) or "the event"
        more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
        raise UndecodableError(f"Invalid {message.type}: {where}: {first['msg']}{more}.") from error
    if not message.message_id:
        raise UndecodableError(f"A {message.type} without a message id cannot be told from its copies.")
    traceparent = message.headers.get("traceparent")
    return Envelope(
        event=event,
        event_id=message.message_id,
        sender=message.app_id or "unknown",
        occurred_at=_occurred_at(message),
        traceparent=traceparent if isinstance(traceparent, str) else None,
        message=message,
    )


def _occurred_at(message: Message) -> datetime:
    """A record for people, so a wrong one is no reason to refuse the event."""
    exact = message.headers.get("cloudEvents:time")
    try:
        if isinstance(exact, str) and (moment := datetime.fromisoformat(exact)).tzinfo is not None:
            return moment.astimezone(UTC)
    except (ValueError, OverflowError):
        pass  # the property is the next best
    return message.timestamp or datetime.fromtimestamp(0, UTC)


def _event_type(name: str) -> type[Event]:
    event_type = _BY_TYPE_NAME.get(name)
    if event_type is not None:
        return event_type
    match = _TYPE_NAME.fullmatch(name or "")
    if match is None:
        raise UnknownEventError(f"'{header_text(name or '')}' is not the type of an event.")
    known = sorted(known.version for known in EVENT_TYPES if known.type == match["type"])
    if known:
        raise UnknownEventError(f"{match['type']} is known in version {known[-1]}, not {match['version']}.")
    raise UnknownEventError(f"No event has the type '{match['type']}'.")


def _packed(event: Event) -> bytes:
    try:
        body: bytes = msgpack.packb(event.model_dump(mode="python", round_trip=True), default=_pack_special)
        check_structure(body)
    except (ValueError, OverflowError, TypeError) as error:
        raise UnencodableError(f"A {event.type_name()} cannot be written: {error}.") from error
    return body


def _unpack(content: bytes) -> dict[str, Any]:
    check_structure(content)
    try:
        fields = msgpack.unpackb(content, timestamp=3, strict_map_key=True)
    # A timestamp beyond the year 9999 is an OverflowError.
    except (ValueError, OverflowError, msgpack.UnpackException) as error:
        raise UndecodableError(f"The body is not valid msgpack: {error}.") from error
    if not isinstance(fields, dict):
        raise UndecodableError(f"The body is a {type(fields).__name__}, not a map of fields.")
    return fields


def _pack_special(value: object) -> object:
    if isinstance(value, datetime):
        return msgpack.Timestamp.from_datetime(value)
    raise TypeError(f"{type(value).__name__} has no place in an event")
