"""Labels by the legs of a zigzag: which way the price is going until it next turns."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, ClassVar

import numpy as np
from pydantic import Field

from ktrdr.errors import DataError
from ktrdr.labels.base import (
    ACTIONS,
    BUY,
    HOLD,
    LABELS,
    SELL,
    FloatArray,
    Labels,
    LabelSource,
    labels_at,
    prices,
    require_bars,
)
from ktrdr.market.bars import Bars

# About 10 ms of work.
_BARS_BETWEEN_CHECKS = 1 << 16


@LABELS.register("zigzag")
class ZigZag(LabelSource):
    """BUY within a rise, SELL within a fall, HOLD at the turning points and at the first bar.

    A leg ends at its extreme close once a close is ``zigzag_threshold`` (a share) back from it; the first of
    equal closes is the extreme. The first leg begins at the first close and takes its direction when a close
    is the threshold away from that.

    A bar's label is known as soon as no later bar can change it: at the next bar that carries the leg on
    beyond it, or at the one that turns the leg. The bars from the last extreme on, whose leg may still turn
    there, have none.
    """

    classes: ClassVar[tuple[str, ...]] = ACTIONS
    ignored_names: ClassVar[Mapping[str, str]] = {
        "label_lookahead": "a leg lasts until the price turns, however long that takes"
    }

    zigzag_threshold: Annotated[float, Field(gt=0, lt=1)] = 0.02

    @property
    def horizon_bars(self) -> int:
        """0: a leg may last for any number of bars."""
        return 0

    def compute(self, bars: Bars, check: Callable[[], None]) -> Labels:
        """Label every bar up to the last extreme that may still move."""
        require_bars(bars, 2, "zigzag")
        runs = _trace(prices(bars, "close"), self.zigzag_threshold, check)
        if not runs.ends:
            raise DataError(
                f"The close never moves by {self.zigzag_threshold:.2%} from the first of {len(bars)} bars, "
                "so zigzag labels none.",
                fix="Lower zigzag_threshold, or use a longer range of dates.",
            )
        ends = np.array(runs.ends, dtype=np.int64)
        starts = np.concatenate(([0], ends[:-1]))
        values = np.repeat(np.array(runs.rests, dtype=np.int64), ends - starts)
        values[starts] = runs.firsts
        return labels_at(bars, np.arange(ends[-1]), values, np.repeat(ends, ends - starts))


@dataclass(slots=True)
class _Runs:
    """Consecutive runs of bars; the label of each is settled at the bar right after it."""

    ends: list[int] = field(default_factory=list)
    """First bar after the run."""
    firsts: list[int] = field(default_factory=list)
    """Label of its first bar."""
    rests: list[int] = field(default_factory=list)
    """Label of its further bars."""

    def settle(self, end: int, first: int, rest: int) -> None:
        self.ends.append(end)
        self.firsts.append(first)
        self.rests.append(rest)


def _trace(closes: FloatArray, threshold: float, check: Callable[[], None]) -> _Runs:
    runs = _Runs()
    leg = HOLD  # until there is a first one
    extreme = float(closes[0])
    rise_to, fall_to = extreme * (1 + threshold), extreme * (1 - threshold)
    for start in range(1, len(closes), _BARS_BETWEEN_CHECKS):
        check()
        for at, close in enumerate(closes[start : start + _BARS_BETWEEN_CHECKS].tolist(), start):
            # What is not settled begins with the extreme: it is a turning point, or within the leg.
            if leg == BUY:
                if close > extreme:
                    runs.settle(at, first=BUY, rest=BUY)
                elif close <= fall_to:
                    runs.settle(at, first=HOLD, rest=SELL)
                    leg = SELL
                else:
                    continue
            elif leg == SELL:
                if close < extreme:
                    runs.settle(at, first=SELL, rest=SELL)
                elif close >= rise_to:
                    runs.settle(at, first=HOLD, rest=BUY)
                    leg = BUY
                else:
                    continue
            elif close >= rise_to:
                runs.settle(at, first=HOLD, rest=BUY)
                leg = BUY
            elif close <= fall_to:
                runs.settle(at, first=HOLD, rest=SELL)
                leg = SELL
            else:
                continue
            extreme = close
            rise_to, fall_to = extreme * (1 + threshold), extreme * (1 - threshold)
    return runs
