"""Reading along: what is logged in a context, while somebody listens."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import structlog

from ktrdr.logs.redaction import redact


@dataclass(frozen=True, slots=True)
class Overheard:
    """A line of the log."""

    level: str
    event: str
    fields: Mapping[str, object]
    """What it says besides; an exception as its traceback."""


Listener = Callable[[Overheard], None]

_listener: ContextVar[Listener | None] = ContextVar("listener", default=None)


@contextmanager
def overheard_by(listener: Listener | None) -> Iterator[None]:
    """Tell the listener of each line that is logged in this context, whether it is shown or not.

    Tasks that are begun in the block belong to it. It is told of lines from info on, and of those at debug
    where these are shown; None: nobody is.
    """
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)


def overheard_by_nobody() -> None:
    """Tell no listener of what is logged in this context from now on."""
    _listener.set(None)


def is_overheard() -> bool:
    """Return whether anybody is told of what is logged in this context."""
    return _listener.get() is not None


def overhear(logger: Any, method: str, event: Any) -> Any:
    """Tell whoever listens, and go on: for structlog."""
    listener = _listener.get()
    if listener is not None:
        said = structlog.processors.format_exc_info(logger, method, dict(event))
        if isinstance(traceback := said.get("exception"), str):
            said["exception"] = redact(traceback)
        level, text = str(said.pop("level", method)), str(said.pop("event", ""))
        listener(Overheard(level, text, said))
    return event
