"""What nobody needs any more, as it is told."""

from collections.abc import Awaitable
from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Refuse:
    """One kind of things that nobody needs."""

    what: str
    why: str
    """Why it may go."""
    count: int
    bytes: int | None
    """On the disk, or in the bucket; None: rows, whose space the database uses again."""


@dataclass(slots=True)
class Cleaning:
    """What was found, and removed if that was asked for."""

    refuse: list[Refuse] = field(default_factory=list)
    left_alone: list[str] = field(default_factory=list)
    """What could not be looked at, or must not be touched from here, and why."""


class Clean(Protocol):
    """Looks for what nobody needs any more, and removes it if it is to."""

    def __call__(self, *, apply: bool) -> Awaitable[Cleaning]:
        """Return what was found, and removed."""
