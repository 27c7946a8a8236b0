"""Lines of a log as events carry them: bounded, whatever was logged."""

import json
import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, StringConstraints

from ktrdr.events.base import Ordinal, Part, UtcDatetime
from ktrdr.events.texts import cut_head, cut_tail

MAX_EVENT_CHARACTERS = 1000
MAX_FIELDS = 32
MAX_NAME_CHARACTERS = 64
MAX_VALUE_CHARACTERS = 4000
_LONG_VALUE_CHARACTERS = 300
"""Of any value but a traceback."""
_MAX_INTEGER = 2**63

LogLevel = Literal["debug", "info", "warning", "error", "critical"]
LogSource = Literal["agent", "executor"]


def _said(value: Any) -> Any:
    return cut_head(value, MAX_EVENT_CHARACTERS) if isinstance(value, str) else value


def _plain(value: Any) -> Any:
    if not isinstance(value, Mapping):
        return value
    some = list(value.items())[:MAX_FIELDS]
    return {cut_head(str(name), MAX_NAME_CHARACTERS): _scalar(name, item) for name, item in some}


def _scalar(name: object, value: Any) -> Any:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return value if -_MAX_INTEGER <= value < _MAX_INTEGER else str(value)[:_LONG_VALUE_CHARACTERS]
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if name == "exception":
        return cut_tail(str(value), MAX_VALUE_CHARACTERS)
    return cut_head(value if isinstance(value, str) else _in_words(value), _LONG_VALUE_CHARACTERS)


def _in_words(value: Any) -> str:
    try:
        return json.dumps(value, ensure_ascii=False, default=str)
    except (TypeError, ValueError, RecursionError):
        return str(value)


Said = Annotated[str, StringConstraints(max_length=MAX_EVENT_CHARACTERS), BeforeValidator(_said)]
"""What a line says; what is longer is cut at its end."""
Fields = Annotated[
    dict[
        Annotated[str, StringConstraints(max_length=MAX_NAME_CHARACTERS)],
        bool
        | Annotated[int, Field(ge=-_MAX_INTEGER, lt=_MAX_INTEGER)]
        | float
        | Annotated[str, StringConstraints(max_length=MAX_VALUE_CHARACTERS)]
        | None,
    ],
    Field(max_length=MAX_FIELDS),
    BeforeValidator(_plain),
]
"""What a line says besides; nested values become JSON text, and what is too much is cut."""


class LogEntry(Part):
    """One line of the log of an attempt."""

    number: Ordinal
    """Counts every line of the claim, so that numbers which are missing were left out."""
    at: UtcDatetime
    level: LogLevel
    source: LogSource
    """Who said it: the agent, or the executor in its runner."""
    event: Said
    fields: Fields = Field(default_factory=dict)

    @property
    def characters(self) -> int:
        """About how much room it takes."""
        return len(self.event) + sum(len(name) + len(str(value)) for name, value in self.fields.items())
