"""Interleaved timing: what is compared is run in turn, so that a drift of the machine hits both."""

import gc
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Result:
    """One line of the table."""

    what: str
    seconds: float
    """Median."""
    baseline: str
    baseline_seconds: float
    """Median."""
    target: str
    met: bool
    note: str = ""

    @property
    def ratio(self) -> float:
        return self.seconds / self.baseline_seconds


def alternate(*works: Callable[[], object], rounds: int = 5) -> list[list[float]]:
    """Run each work once uncounted, then all of them in turn; return the seconds of each."""
    for work in works:
        work()
    times: list[list[float]] = [[] for _ in works]
    for _ in range(rounds):
        for work, taken in zip(works, times, strict=True):
            taken.append(timed(work))
    return times


def timed(work: Callable[[], object]) -> float:
    gc.collect()
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def median_ratio(ours: list[float], theirs: list[float]) -> float:
    """Return the median of the ratios of neighbouring runs."""
    return statistics.median(a / b for a, b in zip(ours, theirs, strict=True))
