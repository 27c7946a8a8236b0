"""Logging: structlog, to standard error; for people on a terminal, JSON elsewhere."""

import json
import logging
import math
import sys
from collections.abc import Mapping
from io import StringIO
from typing import Any, Literal, TextIO

import structlog

from ktrdr.logs.overhearing import is_overheard, overhear
from ktrdr.logs.redaction import redact, redact_fields

LogLevel = Literal["debug", "info", "warning", "error"]
LogFormat = Literal["auto", "console", "json"]

_SAID_BY_US = ("aiormq",)
"""Libraries whose errors are told with what they mean here, once, rather than at each try."""


def configure_logging(level: LogLevel = "info", form: LogFormat = "auto") -> None:
    """Set up logging for this process, and for the libraries in it; safe to call again.

    Every line carries what was bound with `structlog.contextvars`: ``operation_id``, ``attempt``, ``agent``.
    Passwords and tokens are blotted out. In JSON each line is one object, with its time in UTC.

    Args:
        level: least severe line to show; `overheard_by` is told of lines from info on in any case.
        form: how lines look; `auto` chooses by whether standard error is a terminal.
    """
    _configure_structlog(level, form)
    root = logging.getLogger()
    root.handlers[:] = [handler for handler in root.handlers if not isinstance(handler, _ToStructlog)]
    # Of these, most say too much at debug and info.
    root.addHandler(_ToStructlog(max(getattr(logging, level.upper()), logging.WARNING)))
    for name in _SAID_BY_US:
        logging.getLogger(name).setLevel(logging.CRITICAL)


def configure_logging_of_guest(level: LogLevel = "warning", form: LogFormat = "auto") -> None:
    """Set up logging inside a program that is not ours; if it has set up structlog itself, that stays."""
    if not structlog.is_configured():
        _configure_structlog(level, form)


def _configure_structlog(level: LogLevel, form: LogFormat) -> None:
    on_terminal = sys.stderr.isatty()
    as_json = form == "json" or (form == "auto" and not on_terminal)
    shown_from = getattr(logging, level.upper())
    processors: list[structlog.typing.Processor] = [
        _OfInterest(shown_from),
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        redact_fields,
        overhear,
        _From(shown_from),
        structlog.processors.TimeStamper(fmt="iso", utc=True) if as_json else _clock_time,
    ]
    # Tracebacks without local variables, which may hold passwords.
    if as_json:
        tracebacks = structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
        processors += [
            structlog.processors.ExceptionRenderer(tracebacks),
            # Once more, for what the traceback quotes.
            redact_fields,
            structlog.processors.JSONRenderer(serializer=_strict_json),
        ]
    else:
        processors.append(structlog.dev.ConsoleRenderer(colors=on_terminal, exception_formatter=_traceback))
    structlog.configure(
        processors=processors,
        wrapper_class=structlog.make_filtering_bound_logger(min(shown_from, logging.INFO)),
        logger_factory=_StderrLoggerFactory(),
        cache_logger_on_first_use=False,
    )


class _ToStructlog(logging.Handler):
    """Has what other people's libraries log look like everything else."""

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        said = record.getMessage().strip()
        structlog.get_logger().log(record.levelno, said, logger=record.name, exc_info=error)


class _From:
    """Drops lines that are less severe."""

    def __init__(self, level: int) -> None:
        levels = logging.getLevelNamesMapping().items()
        self._dropped = {name.lower() for name, severity in levels if severity < level}

    def __call__(self, _logger: Any, method: str, event: Any) -> Any:
        if method in self._dropped:
            raise structlog.DropEvent
        return event


class _OfInterest(_From):
    """Drops them before anything is made of them, where nobody reads along either."""

    def __call__(self, logger: Any, method: str, event: Any) -> Any:
        return event if is_overheard() else super().__call__(logger, method, event)


_clock_time = structlog.processors.TimeStamper(fmt="%H:%M:%S", utc=False)


def _traceback(stream: TextIO, error: Any) -> None:
    plain = StringIO()
    structlog.dev.plain_traceback(plain, error)
    stream.write(redact(plain.getvalue()))


def _strict_json(event: Any, **options: Any) -> str:
    return json.dumps(_finite(event), allow_nan=False, **options)


def _finite(value: Any) -> Any:
    """Return it with words for NaN and the infinities, for which JSON has no numbers."""
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value


class _StderrLoggerFactory:
    """Looks up ``sys.stderr`` at each use, so that redirection and capture work."""

    def __call__(self, *args: object) -> structlog.PrintLogger:
        return structlog.PrintLogger(file=sys.stderr)
