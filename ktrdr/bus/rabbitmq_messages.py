"""Messages to and from AMQP's properties and headers."""

import struct
from collections.abc import Mapping

from aiormq.abc import DeliveredMessage
from pamqp import commands, common

from ktrdr.bus.dead_letters import FROM_QUEUE_HEADER, FROM_USER_HEADER, REASON_HEADER
from ktrdr.bus.rabbitmq_arguments import WireNames
from ktrdr.errors import PublishNackedError
from ktrdr.events.message import HeaderValue, Message

_PERSISTENT = 2
_TRANSIENT = 1
_MAX_NAME_BYTES = 255
_MAX_HEADER_BYTES = 120_000
"""All properties must fit one frame of 128 KiB: the broker ends the connection of who sends more."""

_BROKERS_PREFIX = "x-"
"""Brokers write their story into headers that begin so: ``x-death``, ``x-delivery-count``, and more."""
_OUR_PREFIX = "x-ktrdr-"


class MessageProperties(commands.Basic.Properties):
    """Properties whose headers are encoded already."""

    # pamqp would send floats in single precision.
    encoded_headers: bytes = b""

    def encode_property(self, name: str, value: common.FieldValue) -> bytes:
        """Return the property as it goes on the wire."""
        return self.encoded_headers if name == "headers" else super().encode_property(name, value)


def to_properties(message: Message, *, user: str | None) -> MessageProperties:
    """Return a message's properties for the wire.

    Raises:
        PublishNackedError: AMQP has no form for them.
    """
    properties = MessageProperties(
        content_type=_name("content type", message.content_type),
        content_encoding=_name("content encoding", message.content_encoding),
        delivery_mode=_PERSISTENT if message.persistent else _TRANSIENT,
        correlation_id=_name("correlation id", message.correlation_id),
        expiration=None if message.expiration_s is None else str(max(0, round(message.expiration_s * 1000))),
        message_id=_name("message id", message.message_id),
        timestamp=message.timestamp,
        message_type=_name("type", message.type),
        user_id=user,
        app_id=_name("sender", message.app_id),
    )
    if message.headers:
        properties.headers = {}  # says that there are some
        properties.encoded_headers = _encoded(message.headers)
    return properties


def from_delivered(delivered: DeliveredMessage, names: WireNames) -> Message:
    """Return a message as it was delivered; whatever is in it, for the codec to judge."""
    properties = delivered.header.properties
    return Message(
        body=delivered.body,
        message_id=properties.message_id or "",
        type=properties.message_type or "",
        correlation_id=properties.correlation_id,
        app_id=properties.app_id,
        timestamp=properties.timestamp,
        content_type=properties.content_type or "",
        content_encoding=properties.content_encoding,
        expiration_s=_seconds(properties.expiration),
        persistent=properties.delivery_mode == _PERSISTENT,
        headers=_headers(properties.headers or {}, names),
        user_id=properties.user_id,
    )


def has_stream_offset(delivered: DeliveredMessage) -> bool:
    """Whether a message tells its position in a stream."""
    return "x-stream-offset" in (delivered.header.properties.headers or {})


def check_routing_key(key: str) -> None:
    """Raise `PublishNackedError` for a routing key that AMQP has no form for."""
    _name("routing key", key)


def _headers(found: common.FieldTable, names: WireNames) -> dict[str, HeaderValue]:
    headers: dict[str, HeaderValue] = {}
    for name, value in found.items():
        if name.startswith(_BROKERS_PREFIX) and not name.startswith(_OUR_PREFIX):
            continue
        if isinstance(value, str | int | float | bool):
            headers[name] = value
    if (death := _last_death(found)) is not None:
        headers[REASON_HEADER], headers[FROM_QUEUE_HEADER] = death
        headers.pop(FROM_USER_HEADER, None)  # whoever published it has said so, and is known by the broker
    if isinstance(queue := headers.get(FROM_QUEUE_HEADER), str):
        headers[FROM_QUEUE_HEADER] = names.own(queue)
    return headers


def _last_death(found: common.FieldTable) -> tuple[str, str] | None:
    """Return reason and queue of the death that the broker tells of: later than any that we have told of.

    The copy that `reject` makes has only simple headers, so none of the broker's.
    """
    deaths = found.get("x-death")
    if isinstance(deaths, list) and deaths and isinstance(last := deaths[0], dict):
        reason, queue = last.get("reason"), last.get("queue")
        if isinstance(reason, str) and isinstance(queue, str):
            return reason, queue
    return None


def _seconds(expiration: str | None) -> float | None:
    return int(expiration) / 1000 if expiration and expiration.isdecimal() else None


def _name(what: str, value: str | None) -> str | None:
    if value is None or (len(value) <= _MAX_NAME_BYTES and value.isascii()):
        return value
    try:
        size = len(value.encode())
    except UnicodeEncodeError as error:
        raise PublishNackedError(f"The {what} of a message is not text: {error.reason}.") from error
    if size > _MAX_NAME_BYTES:
        raise PublishNackedError(f"The {what} of a message has {size} bytes; {_MAX_NAME_BYTES} is the limit.")
    return value


def _encoded(headers: Mapping[str, HeaderValue]) -> bytes:
    try:
        fields = b"".join(_short(name.encode()) + _field(value) for name, value in headers.items())
    except (TypeError, ValueError, struct.error) as error:
        raise PublishNackedError(f"The headers of a message have no form in AMQP: {error}.") from error
    if len(fields) > _MAX_HEADER_BYTES:
        raise PublishNackedError(
            f"The headers of a message have {len(fields):,} bytes; {_MAX_HEADER_BYTES:,} is the limit.",
            fix="Put what is long into the body.",
        )
    return _LENGTH.pack(len(fields)) + fields


_LENGTH = struct.Struct(">I")
_LONG = struct.Struct(">cq")
_DOUBLE = struct.Struct(">cd")


def _short(name: bytes) -> bytes:
    return bytes((len(name),)) + name


def _field(value: HeaderValue) -> bytes:
    match value:
        case bool():
            return b"t\x01" if value else b"t\x00"
        case int():
            return _LONG.pack(b"l", value)
        case float():
            return _DOUBLE.pack(b"d", value)
        case str():
            text = value.encode()
            return b"S" + _LENGTH.pack(len(text)) + text
    raise TypeError(f"{type(value).__name__} is no type of header")
