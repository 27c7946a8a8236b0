"""What is said of a broker, line by line."""

from dataclasses import dataclass
from enum import StrEnum

SET_UP = "Create what is missing: ktrdr broker setup"
"""What to do about what is missing."""


class Mark(StrEnum):
    """How a finding is meant."""

    OK = "ok"
    NOTE = "note"
    """Nothing is wrong with the broker, but somebody may want to know."""
    WRONG = "wrong"


class Part(StrEnum):
    """What a finding is about."""

    BROKER = "broker"
    USER = "user"
    EXCHANGE = "exchange"
    QUEUE = "queue"
    BINDING = "binding"
    POLICY = "policy"
    LEFTOVER = "leftover"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at."""

    part: Part
    name: str
    mark: Mark
    detail: str = ""
    fix: str | None = None
