"""What a drill says in the end."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from ktrdr.errors import KtrdrError


class Outcome(StrEnum):
    """How a drill ended."""

    PASSED = "passed"
    FAILED = "failed"
    """The promise does not hold on this broker."""
    UNCHECKED = "unchecked"
    """It could not be found out."""
    SKIPPED = "skipped"
    """Nobody asked for it."""
    MEASURED = "measured"
    """It only gives figures."""


@dataclass(frozen=True, slots=True)
class Result:
    """How a drill ended, and why."""

    outcome: Outcome
    detail: str
    """What was seen, or why it could not be."""
    changes: tuple[str, ...] = ()
    """What to change, with the command where there is one; the most likely first."""
    figures: Mapping[str, float] = field(default_factory=dict)
    """By name with its unit, as in ``confirm_p50_ms``."""
    took_s: float = 0.0


class BrokenPromiseError(KtrdrError):
    """A promise does not hold on this broker."""

    def __init__(self, message: str, *changes: str) -> None:
        self.changes = changes
        """What to change; the most likely first."""
        super().__init__(message, fix=changes[0] if changes else None)


class UncheckableError(KtrdrError):
    """It cannot be found out whether a promise holds."""

    def __init__(self, message: str, *changes: str) -> None:
        self.changes = changes
        """What to change so that it can."""
        super().__init__(message, fix=changes[0] if changes else None)
