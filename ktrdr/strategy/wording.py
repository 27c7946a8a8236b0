"""What pydantic says of a value, in the words of a strategy file."""

import re
from collections.abc import Sequence

from pydantic_core import ErrorDetails

_PLAIN = {
    "a valid string": "text",
    "a valid integer": "a whole number",
    "a valid number": "a number",
    "a valid boolean": "true or false",
    "a valid dictionary": "a mapping",
    "a valid list": "a list",
    "greater than or equal to": "at least",
    "less than or equal to": "at most",
    "greater than": "above",
    "less than": "below",
}
_MUST_BE = "must be "


def readable(details: Sequence[ErrorDetails]) -> str:
    """Return what is wrong with one value; several details are of the alternatives that it could be."""
    wordings = list(dict.fromkeys(_plain(detail["msg"]) for detail in details))
    first, *others = wordings
    text = " or ".join([first, *(other.removeprefix(_MUST_BE) for other in others)])
    value = details[0]["input"]
    shown = repr(value)
    if isinstance(value, str | int | float | bool | None) and len(shown) <= 60 and shown not in text:
        text += f", not {shown}"
    return text


def choices(detail: ErrorDetails) -> list[str]:
    """Return the names that a value could be; none where it is not a choice of names."""
    return re.findall("'([^']+)'", str(detail.get("ctx", {}).get("expected", "")))


def _plain(message: str) -> str:
    text = re.sub(r"^(Value error|Assertion failed), ", "", message)
    text = re.sub(r"^(Input|String|List) should ", "must ", text)
    text = text.replace(" after validation", "")
    for technical, plain in _PLAIN.items():
        text = text.replace(technical, plain)
    return text[:1].lower() + text[1:]
