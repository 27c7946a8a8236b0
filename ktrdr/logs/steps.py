"""Numbered steps: what backend, agent and executor say of how far they are, the same in every mode."""

from enum import Enum


class NumberedStep(Enum):
    """A closed list of steps, each with its number and title; subclassed by whoever takes steps."""

    def __init__(self, number: int, title: str) -> None:
        self.number = number
        self.title = title

    @property
    def step(self) -> str:
        """``[3/8] Computing fuzzy memberships``, for logs and displays."""
        return f"[{self.number}/{len(type(self))}] {self.title}"
