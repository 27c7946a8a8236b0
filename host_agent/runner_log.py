"""The runner's log goes to the agent, line by line, to be shown there as its own."""

import logging
from collections.abc import Callable, Mapping
from numbers import Integral, Real
from typing import Any

import structlog
from pydantic import JsonValue

from host_agent.frames import LogLine
from ktrdr.logs.redaction import redact, redact_fields

_MAX_CHARACTERS = 16_384
_MAX_INTEGER = 2**63


def configure_runner_logging(level: str, emit: Callable[[LogLine], None]) -> None:
    """Send every line of structlog, `logging` and `warnings` from this level on to ``emit``."""
    number = getattr(logging, level.upper())
    forward = _Forward(emit)
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.format_exc_info,
            redact_fields,
            forward,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        cache_logger_on_first_use=False,
    )
    logging.captureWarnings(True)
    root = logging.getLogger()
    root.handlers[:] = [_Handler(emit)]
    # Other people's libraries say too much at debug and info.
    root.setLevel(max(number, logging.WARNING))


class _Forward:
    """The last processor: hands the line over and drops it here."""

    def __init__(self, emit: Callable[[LogLine], None]) -> None:
        self._emit = emit

    def __call__(self, _logger: Any, method: str, event: Mapping[str, Any]) -> Mapping[str, Any]:
        fields = {key: _plain(value) for key, value in event.items() if key not in ("event", "level")}
        self._emit(LogLine(level=event.get("level", method), event=str(event["event"]), fields=fields))
        raise structlog.DropEvent


class _Handler(logging.Handler):
    def __init__(self, emit: Callable[[LogLine], None]) -> None:
        super().__init__()
        self._emit_line = emit

    def emit(self, record: logging.LogRecord) -> None:
        fields: dict[str, JsonValue] = {"logger": record.name}
        if record.exc_info:
            fields["exception"] = _cut(redact(logging.Formatter().formatException(record.exc_info)))
        level = record.levelname.lower()
        self._emit_line(LogLine(level=level, event=_cut(redact(record.getMessage())), fields=fields))


def _plain(value: object) -> JsonValue:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, Integral):  # of NumPy too
        return int(value) if abs(int(value)) < _MAX_INTEGER else str(value)
    if isinstance(value, Real):
        return float(value)
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    return _cut(value if isinstance(value, str) else repr(value))


def _cut(text: str) -> str:
    return text if len(text) <= _MAX_CHARACTERS else text[:_MAX_CHARACTERS] + "…"
