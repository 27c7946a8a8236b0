"""How long what nobody needs is kept."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Self

from ktrdr.settings import Settings, span_of_days


@dataclass(frozen=True, slots=True)
class Retention:
    """How long each is kept; None: for ever."""

    operations: timedelta | None
    """After their end, those that made no model."""
    logs: timedelta | None
    """After the end of their operation."""
    audit: timedelta | None
    blobs: timedelta | None
    """Those that nothing needs, after they were last put."""

    @classmethod
    def from_settings(cls, settings: Settings) -> Self:
        """Return what an installation has chosen."""
        return cls(
            operations=span_of_days(settings.keep_operations_days),
            logs=span_of_days(settings.keep_logs_days),
            audit=span_of_days(settings.keep_audit_days),
            blobs=span_of_days(settings.keep_blobs_days),
        )


def limit_of(now: datetime, kept: timedelta | None) -> datetime | None:
    """Return before when it is too old; None: nothing ever is."""
    return now - kept if kept is not None else None


def in_words(kept: timedelta) -> str:
    """Return a span for people: ``90 days``, ``1.5 hours``."""
    days = kept / timedelta(days=1)
    if days >= 1:
        return f"{days:g} day{'' if days == 1 else 's'}"
    hours = kept / timedelta(hours=1)
    return f"{hours:g} hour{'' if hours == 1 else 's'}"
