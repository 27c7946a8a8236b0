"""What came of a storm: the tally, and whether all that was promised has been kept."""

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from ktrdr.backend.states import State
from tests.e2e.deployment import Deployment

_DEFECTS = (
    "Traceback (most recent call last)",
    "never retrieved",
    "Exception in callback",
    "Exception ignored in",
    "was destroyed but it is pending",
    "ResourceWarning",
    "RuntimeWarning",
    "defect",
)
"""What no process may say, whatever befalls it."""


@dataclass(slots=True)
class Tally:
    """What happened, and what came of it."""

    jobs: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    repeated: int = 0
    states: Counter[str] = field(default_factory=Counter)
    attempts: int = 0
    dead_letters: int = 0
    settled_within_s: float = 0.0
    lost: int = 0
    duplicated: int = 0
    stuck: int = 0

    def describe(self) -> str:
        """Return it in a few lines."""
        faults = ", ".join(f"{count} × {name}" for name, count in sorted(self.faults.items()))
        states = ", ".join(f"{count} {name}" for name, count in sorted(self.states.items()))
        return (
            f"{self.jobs} jobs, {self.attempts} attempts: {states}; "
            f"all ended {self.settled_within_s:.0f} s after the storm\n"
            f"{sum(self.faults.values())} faults: {faults}; {self.repeated} messages repeated\n"
            f"lost: {self.lost}, duplicated: {self.duplicated}, stuck: {self.stuck}, "
            f"dead letters: {self.dead_letters}, all of them poison"
        )

    def count(self, deployment: Deployment, accepted: list[str]) -> None:
        """Count what came of the trainings that were accepted."""
        found = {operation.operation_id: operation for operation in deployment.operations()}
        self.jobs = len(accepted)
        self.states = Counter(operation.state.value for operation in found.values())
        self.attempts = sum(operation.attempt for operation in found.values())
        self.lost = len(set(accepted) - found.keys())
        self.stuck = sum(not operation.state.terminal for operation in found.values())
        self.duplicated = len(deployment.versions()) - self.states[State.COMPLETED]


def check_promises(deployment: Deployment, tally: Tally, weights: dict[int, str]) -> None:
    """Check that nothing was lost, doubled, stuck or changed, and nothing is left; all is stopped now.

    Args:
        deployment: what went through the storm.
        tally: counted.
        weights: the hash of what each seed makes when nothing happens.
    """
    assert (tally.lost, tally.duplicated, tally.stuck) == (0, 0, 0), tally.describe()
    unfinished = [
        f"{op.operation_id}: {op.state} {op.message}"
        for op in deployment.operations()
        if op.state not in (State.COMPLETED, State.CANCELLED)
    ]
    assert unfinished == []
    deployment.check_at_rest(models=tally.states[State.COMPLETED])
    for operation in deployment.operations():
        if operation.model is not None:
            assert deployment.sha256(operation.model) == weights[operation.seed], operation.operation_id
    if defects := list(_defects(deployment.root)):
        pytest.fail("\n".join(defects), pytrace=False)


def check_dead_letters(deployment: Deployment, *, poisoned: set[str], tried: set[str]) -> int:
    """Check that poison alone is dead, each with a reason; throw it away, and return how much it was.

    Args:
        deployment: where.
        poisoned: the ids that must be there; one may be there twice, as a delivery may come twice.
        tried: those that may be.
    """
    letters = deployment.run("dead", "list", "--json").succeed().json()
    found = {letter["id"] for letter in letters}
    assert found <= tried, [letter for letter in letters if letter["id"] not in tried]
    assert found >= poisoned, f"not in the dead letters: {poisoned - found}"
    assert all(letter["reason"] for letter in letters), letters
    if letters:
        deployment.run("dead", "discard", "--all", "--yes").succeed()
    return len(found)


def _defects(root: Path) -> list[str]:
    found = []
    for log in sorted(root.glob("command-*.err")):
        lines = log.read_text(errors="replace").splitlines()
        for number, line in enumerate(lines):
            if any(words in line for words in _DEFECTS):
                found += [f"{log}:{number + 1}:", *lines[max(0, number - 3) : number + 40], ""]
                break
    return found
