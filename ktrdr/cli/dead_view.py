"""How dead letters are shown. Nothing in them is trusted: whoever reached the broker may have written it."""

import json
from datetime import UTC, datetime
from typing import Any

from rich.text import Text

from ktrdr.bus.dead_letter_box import DeadLetter, Outcome
from ktrdr.cli.output import ago, facts, out, printable, size
from ktrdr.errors import CodecError
from ktrdr.events.codec import decode

_EXCERPT_BYTES = 256
_BYTES_PER_LINE = 16
_TIME_HEADER = "cloudEvents:time"


def print_letter(letter: DeadLetter, now: datetime) -> None:
    """Print what a list says of a letter, in three lines."""
    message = letter.message
    what = [message.type or "no type", message.correlation_id or "no operation", size(len(message.body))]
    if (at := _said_at(letter)) is not None:
        what.append(f"{ago(at, now)} ago")
    out.print(Text(letter.id, style="bold"), soft_wrap=True)
    out.print(Text(printable("  " + " · ".join(what))), soft_wrap=True)
    if summary := _summary(letter):
        out.print(Text(printable(f"  {summary}"), style="dim"), soft_wrap=True)
    died = f"  died in {letter.from_queue or 'an unknown queue'}: {letter.reason or 'no reason given'}"
    out.print(Text(printable(died), style="red"), soft_wrap=True)


def print_whole_letter(letter: DeadLetter, now: datetime) -> None:
    """Print everything about a letter: its event, or why that cannot be read and how it begins."""
    message = letter.message
    at = _said_at(letter)
    rows = [
        ("id", letter.id),
        ("type", message.type),
        ("operation", message.correlation_id),
        ("from", message.app_id),
        ("broker's user", message.user_id),
        ("at", f"{at:%Y-%m-%d %H:%M:%S} UTC ({ago(at, now)} ago)" if at else None),
        ("died in", letter.from_queue),
        ("reason", letter.reason),
        ("summary", _summary(letter)),
        ("body", f"{size(len(message.body))}, {message.content_type}, {message.content_encoding or 'plain'}"),
    ]
    out.print(facts([(name, printable(value)) for name, value in rows if value]), soft_wrap=True)
    headers = {name: value for name, value in message.headers.items() if name != "summary"}
    if headers:
        out.print(Text("\nheaders", style="bold"))
        out.print(
            facts([(printable(f"  {name}"), printable(str(value))) for name, value in headers.items()]),
            soft_wrap=True,
        )
    try:
        event = _event(letter)
    except CodecError as error:
        out.print(Text(f"\ncannot be read: {printable(str(error))}", style="red"), soft_wrap=True)
        for line in _hex_lines(message.body[:_EXCERPT_BYTES]):
            out.print(Text(line), soft_wrap=True)
        if (rest := len(message.body) - _EXCERPT_BYTES) > 0:
            out.print(Text(f"  … and {rest:,} bytes more", style="dim"))
        return
    out.print(Text("\nevent", style="bold"))
    for line in json.dumps(event, indent=2, ensure_ascii=False).splitlines():
        out.print(Text(printable(f"  {line}")), soft_wrap=True)


def letter_as_json(letter: DeadLetter) -> dict[str, Any]:
    """Return what a list says of a letter, for ``--json``."""
    message = letter.message
    return {
        "id": letter.id,
        "message_id": message.message_id,
        "type": message.type,
        "operation_id": message.correlation_id,
        "reason": letter.reason,
        "from_queue": letter.from_queue,
        "sender": message.app_id,
        "user_id": message.user_id,
        "at": _said_at(letter),
        "size_bytes": len(message.body),
        "summary": _summary(letter),
    }


def whole_letter_as_json(letter: DeadLetter) -> dict[str, Any]:
    """Return everything about a letter, for ``--json``; one of ``event`` and ``unreadable`` is null."""
    message = letter.message
    event, unreadable = None, None
    try:
        event = _event(letter)
    except CodecError as error:
        unreadable = str(error)
    return {
        **letter_as_json(letter),
        "content_type": message.content_type,
        "content_encoding": message.content_encoding,
        "headers": dict(message.headers),
        "event": event,
        "unreadable": unreadable,
        "body_begins_with_hex": message.body[:_EXCERPT_BYTES].hex(),
    }


def outcome_as_json(outcome: Outcome) -> dict[str, Any]:
    """Return what became of a letter, for ``--json``."""
    return {**letter_as_json(outcome.letter), "fate": outcome.fate.value, "problem": outcome.problem}


def _event(letter: DeadLetter) -> Any:
    return _plain(decode(letter.message).event.model_dump(mode="python"))


def _plain(value: Any) -> Any:
    """Return it as JSON has it; content of models, which is megabytes of it, as its size."""
    match value:
        case dict():
            return {str(key): _plain(each) for key, each in value.items()}
        case list() | tuple():
            return [_plain(each) for each in value]
        case bytes():
            return f"({len(value):,} bytes)"
        case datetime():
            return value.isoformat()
        case _:
            return value


def _said_at(letter: DeadLetter) -> datetime | None:
    """Return when the event was first said: as exactly as its header has it, if that is a time."""
    try:
        said = datetime.fromisoformat(str(letter.message.headers.get(_TIME_HEADER, "")))
        return said.astimezone(UTC) if said.tzinfo is not None else letter.message.timestamp
    except (ValueError, OverflowError):
        return letter.message.timestamp


def _summary(letter: DeadLetter) -> str:
    return str(letter.message.headers.get("summary", ""))


def _hex_lines(content: bytes) -> list[str]:
    lines = []
    for start in range(0, len(content), _BYTES_PER_LINE):
        row = content[start : start + _BYTES_PER_LINE]
        text = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in row)
        lines.append(f"  {start:04x}  {row.hex(' '):<{3 * _BYTES_PER_LINE}} {text}")
    return lines
