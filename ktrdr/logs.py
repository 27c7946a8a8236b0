"""Logging: structlog, to standard error; for people on a terminal, JSON elsewhere."""

import logging
import sys
from typing import Literal

import structlog

LogLevel = Literal["debug", "info", "warning", "error"]
LogFormat = Literal["auto", "console", "json"]


def configure_logging(level: LogLevel = "info", form: LogFormat = "auto") -> None:
    """Set up logging for this process; safe to call again.

    Every line carries what was bound with `structlog.contextvars`: ``operation_id``, ``attempt``, ``agent``.
    """
    on_terminal = sys.stderr.isatty()
    as_json = form == "json" or (form == "auto" and not on_terminal)
    # Tracebacks without local variables, which may hold passwords.
    renderer: structlog.typing.Processor
    processors: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True) if as_json else _clock_time,
    ]
    if as_json:
        tracebacks = structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
        processors.append(structlog.processors.ExceptionRenderer(tracebacks))
        renderer = structlog.processors.JSONRenderer()
    else:
        traceback = structlog.dev.RichTracebackFormatter(show_locals=False)
        renderer = structlog.dev.ConsoleRenderer(colors=on_terminal, exception_formatter=traceback)
    structlog.configure(
        processors=[*processors, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        logger_factory=_StderrLoggerFactory(),
        cache_logger_on_first_use=False,
    )


_clock_time = structlog.processors.TimeStamper(fmt="%H:%M:%S", utc=False)


class _StderrLoggerFactory:
    """Looks up ``sys.stderr`` at each use, so that redirection and capture work."""

    def __call__(self, *args: object) -> structlog.PrintLogger:
        return structlog.PrintLogger(file=sys.stderr)
