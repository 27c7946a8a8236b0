"""Interleaved timing: what is compared is run in turn, so that a drift of the machine hits both."""

import gc
import statistics
import time
from collections.abc import Awaitable, Callable
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


async def alternate_async(*works: Callable[[], Awaitable[object]], rounds: int = 5) -> list[list[float]]:
    """Do as `alternate` does, with coroutines."""
    times: list[list[float]] = [[] for _ in works]
    for round_ in range(rounds + 1):
        for work, taken in zip(works, times, strict=True):
            gc.collect()
            started = time.perf_counter()
            await work()
            if round_:
                taken.append(time.perf_counter() - started)
    return times


def timed(work: Callable[[], object]) -> float:
    gc.collect()
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def median_ratio(ours: list[float], theirs: list[float]) -> float:
    """Return the median of the ratios of neighbouring runs."""
    return statistics.median(a / b for a, b in zip(ours, theirs, strict=True))


def percentile(values: list[float], percent: float) -> float:
    """Return the smallest value that so many percent of all do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]


def spread(seconds: list[float]) -> str:
    """Return p50 and p99 in milliseconds, for a note."""
    p50, p99 = (percentile(seconds, percent) * 1e3 for percent in (50, 99))
    return f"p50 {p50:.1f} ms · p99 {p99:.1f} ms · n {len(seconds)}"
