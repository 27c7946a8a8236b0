"""Dead letters as people and clients are told of them: bounded, and readable, whatever is in them."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from typing import Any

from pydantic import JsonValue

from ktrdr.bus.dead_letter_box import DeadLetter, Fate, Outcome
from ktrdr.errors import CodecError
from ktrdr.events.codec import decode
from ktrdr.events.message import MAX_HEADER_CHARACTERS, HeaderValue
from ktrdr.events.texts import cut_head

EXCERPT_BYTES = 256
"""Of a body, which may be anything."""
_MAX_TEXT_CHARACTERS = 20_000
"""Of one text in an event: as long as a strategy is."""
_TIME_HEADER = "cloudEvents:time"


@dataclass(frozen=True, slots=True)
class LetterRecord:
    """What a list says of a dead letter."""

    id: str
    message_id: str
    type: str
    operation_id: str | None
    reason: str
    from_queue: str | None
    """Where it died."""
    sender: str | None
    user_id: str | None
    """Who published it, as the broker has checked it."""
    at: datetime | None
    """When the event was first said."""
    size_bytes: int
    summary: str


@dataclass(frozen=True, slots=True)
class WholeLetter(LetterRecord):
    """Everything about a dead letter; one of ``event`` and ``unreadable`` is None."""

    content_type: str
    content_encoding: str | None
    headers: Mapping[str, HeaderValue]
    event: JsonValue
    """Content of models in it as its size."""
    unreadable: str | None
    """Why the event cannot be read."""
    body_begins_with_hex: str


@dataclass(frozen=True, slots=True)
class LetterOutcome(LetterRecord):
    """What became of a dead letter."""

    fate: Fate
    problem: str | None
    """Why it was kept."""


def letter_record(letter: DeadLetter) -> LetterRecord:
    """Return what a list says of a letter."""
    message = letter.message
    # What a broker hands on as headers may be long; its properties have 255 bytes at most.
    from_queue = letter.from_queue
    return LetterRecord(
        id=letter.id,
        message_id=_text(message.message_id),
        type=_text(message.type),
        operation_id=_text_or_none(message.correlation_id),
        reason=_text(letter.reason),
        from_queue=_text_or_none(from_queue),
        sender=_text_or_none(message.app_id),
        user_id=_text_or_none(letter.from_user),
        at=_said_at(letter),
        size_bytes=len(message.body),
        summary=_text(str(message.headers.get("summary", ""))),
    )


def whole_letter(letter: DeadLetter) -> WholeLetter:
    """Return everything about a letter: its event, or why that cannot be read, and how it begins."""
    message = letter.message
    event, unreadable = None, None
    try:
        event = _plain(decode(message).event.model_dump(mode="python"))
    except CodecError as error:
        unreadable = str(error)
    return WholeLetter(
        **_fields(letter),
        content_type=_text(message.content_type),
        content_encoding=_text_or_none(message.content_encoding),
        # Not cut: a broker lets no more than 128 KiB of them pass.
        headers={_sendable(name): _header(value) for name, value in message.headers.items()},
        event=event,
        unreadable=unreadable,
        body_begins_with_hex=message.body[:EXCERPT_BYTES].hex(),
    )


def letter_outcome(outcome: Outcome) -> LetterOutcome:
    """Return what became of a letter."""
    return LetterOutcome(**_fields(outcome.letter), fate=outcome.fate, problem=outcome.problem)


def _fields(letter: DeadLetter) -> dict[str, Any]:
    record = letter_record(letter)
    return {field.name: getattr(record, field.name) for field in fields(record)}


def _plain(value: Any) -> JsonValue:
    """Return it as JSON has it; content of models, which is megabytes of it, as its size."""
    match value:
        case None | bool():
            return value
        case dict():
            return {_sendable(str(key)): _plain(each) for key, each in value.items()}
        case list() | tuple():
            return [_plain(each) for each in value]
        case bytes():
            return f"({len(value):,} bytes)"
        case datetime():
            return value.isoformat()
        case int():
            return value
        case float():
            return value if math.isfinite(value) else str(value)
        case _:
            return cut_head(str(value), _MAX_TEXT_CHARACTERS)


def _header(value: HeaderValue) -> HeaderValue:
    match value:
        case str():
            return _sendable(value)
        case float() if not math.isfinite(value):
            return str(value)
        case _:
            return value


def _said_at(letter: DeadLetter) -> datetime | None:
    """Return when the event was first said: as exactly as its header has it, if that is a time."""
    try:
        said = datetime.fromisoformat(str(letter.message.headers.get(_TIME_HEADER, "")))
        return said.astimezone(UTC) if said.tzinfo is not None else letter.message.timestamp
    except (ValueError, OverflowError):
        return letter.message.timestamp


def _text(text: str) -> str:
    return cut_head(text, MAX_HEADER_CHARACTERS)


def _text_or_none(text: str | None) -> str | None:
    return None if text is None else _text(text)


def _sendable(text: str) -> str:
    return text.encode("utf-8", "replace").decode()
