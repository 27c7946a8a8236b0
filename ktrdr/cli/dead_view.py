"""How dead letters are shown. Nothing in them is trusted: whoever reached the broker may have written it."""

import json
from datetime import datetime

from rich.text import Text

from ktrdr.bus.letter_records import EXCERPT_BYTES, LetterRecord, WholeLetter
from ktrdr.cli.output import ago, facts, out, printable, size

_BYTES_PER_LINE = 16


def print_letter(letter: LetterRecord, now: datetime) -> None:
    """Print what a list says of a letter, in three lines."""
    what = [letter.type or "no type", letter.operation_id or "no operation", size(letter.size_bytes)]
    if letter.at is not None:
        what.append(f"{ago(letter.at, now)} ago")
    out.print(Text(letter.id, style="bold"), soft_wrap=True)
    out.print(Text(printable("  " + " · ".join(what))), soft_wrap=True)
    if letter.summary:
        out.print(Text(printable(f"  {letter.summary}"), style="dim"), soft_wrap=True)
    died = f"  died in {letter.from_queue or 'an unknown queue'}: {letter.reason or 'no reason given'}"
    out.print(Text(printable(died), style="red"), soft_wrap=True)


def print_whole_letter(letter: WholeLetter, now: datetime) -> None:
    """Print everything about a letter: its event, or why that cannot be read and how it begins."""
    at = letter.at
    rows = [
        ("id", letter.id),
        ("type", letter.type),
        ("operation", letter.operation_id),
        ("from", letter.sender),
        ("broker's user", letter.user_id),
        ("at", f"{at:%Y-%m-%d %H:%M:%S} UTC ({ago(at, now)} ago)" if at else None),
        ("died in", letter.from_queue),
        ("reason", letter.reason),
        ("summary", letter.summary),
        ("body", f"{size(letter.size_bytes)}, {letter.content_type}, {letter.content_encoding or 'plain'}"),
    ]
    out.print(facts([(name, printable(value)) for name, value in rows if value]), soft_wrap=True)
    headers = {name: value for name, value in letter.headers.items() if name != "summary"}
    if headers:
        out.print(Text("\nheaders", style="bold"))
        out.print(
            facts([(printable(f"  {name}"), printable(str(value))) for name, value in headers.items()]),
            soft_wrap=True,
        )
    if letter.unreadable is not None:
        out.print(Text(f"\ncannot be read: {printable(letter.unreadable)}", style="red"), soft_wrap=True)
        for line in _hex_lines(bytes.fromhex(letter.body_begins_with_hex)):
            out.print(Text(line), soft_wrap=True)
        if (rest := letter.size_bytes - EXCERPT_BYTES) > 0:
            out.print(Text(f"  … and {rest:,} bytes more", style="dim"))
        return
    out.print(Text("\nevent", style="bold"))
    for line in json.dumps(letter.event, indent=2, ensure_ascii=False).splitlines():
        out.print(Text(printable(f"  {line}")), soft_wrap=True)


def _hex_lines(content: bytes) -> list[str]:
    lines = []
    for start in range(0, len(content), _BYTES_PER_LINE):
        row = content[start : start + _BYTES_PER_LINE]
        text = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in row)
        lines.append(f"  {start:04x}  {row.hex(' '):<{3 * _BYTES_PER_LINE}} {text}")
    return lines
