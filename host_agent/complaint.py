"""Warnings about what is tried again and again."""

import structlog

from ktrdr.clock import Clock

_FIRST_INTERVAL_S, _LONGEST_INTERVAL_S = 60.0, 3600.0

_log = structlog.get_logger()


class Complaint:
    """A warning that does not fill the log: given at once, after a minute, and then ever more rarely.

    In between it is at debug.

    Args:
        what: is wrong, in words that are the same each time.
        clock: for the intervals.
    """

    def __init__(self, what: str, clock: Clock) -> None:
        self._what = what
        self._clock = clock
        self._since: float | None = None
        self._next_at = 0.0
        self._interval_s = _FIRST_INTERVAL_S

    def repeat(self, **fields: object) -> None:
        """Note that it is wrong, or wrong still."""
        now = self._clock.monotonic()
        if self._since is None:
            self._since = now
            self._interval_s = _FIRST_INTERVAL_S
        elif now < self._next_at:
            _log.debug(self._what, **fields)
            return
        else:
            fields["for_s"] = round(now - self._since)
            self._interval_s = min(2 * self._interval_s, _LONGEST_INTERVAL_S)
        self._next_at = now + self._interval_s
        _log.warning(self._what, **fields)

    def withdraw(self, instead: str | None = None, **fields: object) -> None:
        """Note that it is well again, and say so if it was wrong."""
        if self._since is None:
            return
        after_s = round(self._clock.monotonic() - self._since, 1)
        self._since = None
        if instead is not None:
            _log.info(instead, after_s=after_s, **fields)
