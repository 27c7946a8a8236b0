"""Passwords and tokens, blotted out of whatever is logged."""

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

BLOT = "***"

_SECRET_NAME = re.compile(r"(?i)pass(?:word|wd|phrase)|secret|token|authorization|api_?key|credential")
# A password may hold an @: the last one before the path counts.
_IN_URL = re.compile(r"(?P<before>\b[A-Za-z][A-Za-z0-9+.-]*://[^\s/:@'\"]*:)[^\s/'\"]+@")
_IN_HEADER = re.compile(r"(?P<before>\b(?:Bearer|Basic) +)[A-Za-z0-9._~+/=-]{6,}", re.IGNORECASE)
_ASSIGNED = re.compile(
    r"(?P<before>(?:pass(?:word|wd|phrase)|secret|token|api_?key)[\"']?\s*[=:]\s*)"
    r"(?:\"[^\"]*\"|'[^']*'|[^\s\"'&,;)}\]]+)",
    re.IGNORECASE,
)

_HEADER_WORDS = ("bearer", "basic")
_ASSIGNED_WORDS = ("pass", "secret", "token", "key")


def redact(text: str) -> str:
    """Return a text without the passwords of URLs, tokens of headers, and what is called a secret in it."""
    if "://" in text:
        text = _IN_URL.sub(rf"\g<before>{BLOT}@", text)
    # Few lines have any of these words, and to look for them costs a tenth.
    lower = text.lower()
    if any(word in lower for word in _HEADER_WORDS):
        text = _IN_HEADER.sub(rf"\g<before>{BLOT}", text)
    if any(word in lower for word in _ASSIGNED_WORDS):
        text = _ASSIGNED.sub(rf"\g<before>{BLOT}", text)
    return text


def redact_fields(_logger: Any, _method: str, event: Any) -> Any:
    """Redact every text of a line, and the values of fields that are called like a secret: for structlog."""
    return {name: _redacted(name, value) for name, value in event.items()}


@lru_cache(maxsize=1024)
def _is_secret(name: str) -> bool:
    return _SECRET_NAME.search(name) is not None


def _redacted(name: object, value: Any) -> Any:
    if value is None:
        return None
    if isinstance(name, str) and _is_secret(name):
        return BLOT
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, int | float):
        return value
    if isinstance(value, Mapping):
        return {key: _redacted(key, item) for key, item in value.items()}
    if isinstance(value, list | tuple) and name != "exc_info":
        return [_redacted(None, item) for item in value]
    if isinstance(value, BaseException) and name != "exc_info":
        return redact(str(value) or repr(value))
    return value
