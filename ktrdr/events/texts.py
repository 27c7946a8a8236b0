"""Fields for what people and programs wrote: bounded and sendable, whatever an exception's message holds.

Whoever reports a failure must not fail at it, so text that is too long is cut, not refused.
"""

import math
from collections.abc import Mapping
from typing import Annotated, Any, SupportsFloat

import msgpack
from pydantic import AfterValidator, BeforeValidator, JsonValue, StringConstraints

from ktrdr.errors import CodecError
from ktrdr.events.message import header_text
from ktrdr.events.structure import check_structure

MAX_LINE_CHARACTERS = 200
MAX_TEXT_CHARACTERS = 8192
MAX_OVERRIDES_BYTES = 64 * 1024
_MAX_OVERRIDES_DEPTH = 32


def _sendable(text: str) -> str:
    # Names of files may hold surrogates (PEP 383), which UTF-8 has no bytes for.
    return text.encode("utf-8", "replace").decode()


def _line(value: Any) -> Any:
    return header_text(value, MAX_LINE_CHARACTERS) if isinstance(value, str) else value


def cut_head(text: str, limit: int) -> str:
    """Return at most so many characters of the beginning, all of which UTF-8 has bytes for."""
    text = _sendable(text)
    return text if len(text) <= limit else text[: limit - 1] + "…"


def cut_tail(text: str, limit: int) -> str:
    """Return at most so many characters of the end; likewise."""
    text = _sendable(text)
    return text if len(text) <= limit else "…" + text[1 - limit :]


def _head(value: Any) -> Any:
    return cut_head(value, MAX_TEXT_CHARACTERS) if isinstance(value, str) else value


def _tail(value: Any) -> Any:
    return cut_tail(value, MAX_TEXT_CHARACTERS) if isinstance(value, str) else value


Line = Annotated[str, StringConstraints(max_length=MAX_LINE_CHARACTERS), BeforeValidator(_line)]
"""One line; what is longer is cut at its end."""
Text = Annotated[str, StringConstraints(max_length=MAX_TEXT_CHARACTERS), BeforeValidator(_head)]
"""Several lines; what is longer is cut at its end."""
TextTail = Annotated[str, StringConstraints(max_length=MAX_TEXT_CHARACTERS), BeforeValidator(_tail)]
"""Several lines; what is longer is cut at its beginning."""


def _finite(value: Any) -> Any:
    if not isinstance(value, Mapping):
        return value
    return {name: number for name, number in value.items() if not _is_infinite_or_nan(number)}


def _is_infinite_or_nan(number: Any) -> bool:
    # Not only float: numpy's float32 is none. An integer may be too large to ask.
    return isinstance(number, SupportsFloat) and not isinstance(number, int) and not math.isfinite(number)


Metrics = Annotated[dict[str, float], BeforeValidator(_finite)]
"""Name → value. One that is not finite (an undefined ratio, a loss that overflowed) is left out."""


def _packable(value: dict[str, JsonValue]) -> dict[str, JsonValue]:
    try:
        packed: bytes = msgpack.packb(value)
        check_structure(packed, max_depth=_MAX_OVERRIDES_DEPTH)
    except (ValueError, OverflowError, CodecError) as error:
        raise ValueError(f"cannot be sent: {error}") from error
    if len(packed) > MAX_OVERRIDES_BYTES:
        raise ValueError(f"has {len(packed):,} bytes; the limit is {MAX_OVERRIDES_BYTES:,}")
    return value


Overrides = Annotated[dict[str, JsonValue], AfterValidator(_packable)]
"""Dotted path → any value that JSON has, at most 64 KiB of them."""
