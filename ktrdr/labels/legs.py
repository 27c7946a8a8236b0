"""Legs of a price: where it turns, and when that is known."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ktrdr.labels.base import FloatArray, IntArray

# About 10 ms of work.
_BARS_BETWEEN_CHECKS = 1 << 15

BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Legs:
    """Runs of bars, each from the end of the one before; the first begins at the first bar.

    No bar from a run's end on can change what is said of the run. The bars after the last run are those from
    the last extreme on, whose leg may still turn there.
    """

    ends: IntArray
    """First bar after each run, at which the run is settled."""
    turns: BoolArray
    """Whether the run's first bar is a turning point; that of the first run counts as one."""
    rises: BoolArray
    """Whether the price rises from the run's first bar to its end."""

    @property
    def starts(self) -> IntArray:
        """First bar of each run."""
        return np.concatenate(([0], self.ends))[:-1]


def trace(closes: FloatArray, shares: FloatArray, check: Callable[[], None]) -> Legs:
    """Cut closes into legs.

    A leg ends at its extreme close once a close is a certain share back from it; the first of equal closes is
    the extreme. The first leg begins at the first close and takes its direction when a close is the share
    away from that.

    Args:
        closes: positive.
        shares: how far back each bar's close must be, as a share of the extreme; above 0.
        check: called at least every 50 ms of work.
    """
    parts = []
    leg = 0  # 1 while it rises, -1 while it falls
    extreme = float(closes[0])
    for start in range(1, len(closes), _BARS_BETWEEN_CHECKS):
        check()
        block = slice(start, start + _BARS_BETWEEN_CHECKS)
        ends, turns, rises = [], [], []
        for at, (close, share) in enumerate(
            zip(closes[block].tolist(), shares[block].tolist(), strict=True), start
        ):
            # What is not settled begins with the extreme: it is a turning point, or within the leg.
            if (leg > 0 and close > extreme) or (leg < 0 and close < extreme):
                turns.append(False)
            elif leg <= 0 and close >= extreme * (1 + share):
                leg = 1
                turns.append(True)
            elif leg >= 0 and close <= extreme * (1 - share):
                leg = -1
                turns.append(True)
            else:
                continue
            ends.append(at)
            rises.append(leg > 0)
            extreme = close
        parts.append((np.array(ends, np.int64), np.array(turns, np.bool_), np.array(rises, np.bool_)))
    if not parts:
        return Legs(np.empty(0, np.int64), np.empty(0, np.bool_), np.empty(0, np.bool_))
    return Legs(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))
