"""Labels of the market's regime: a trend up or down, a range, or a crisis."""

from collections.abc import Callable, Mapping
from typing import Annotated, ClassVar, Self

import numpy as np
import pandas as pd
from pydantic import Field, model_validator

from ktrdr.errors import DataError
from ktrdr.labels.base import (
    LABELS,
    FloatArray,
    IntArray,
    Labels,
    LabelSource,
    labels_at,
    prices,
    require_bars,
)
from ktrdr.labels.legs import BoolArray, Legs, trace
from ktrdr.market.bars import Bars

UP, DOWN, RANGING, VOLATILE = range(4)
_FEWEST_TURNS = 4  # of which two are lows and two are highs, so that there is a progress to see
_BLOCK_BARS = 1 << 17  # about 10 ms of work
Multiplier = Annotated[float, Field(gt=0, allow_inf_nan=False)]


@LABELS.register("regime")
class Regime(LabelSource):
    """UP or DOWN within a leg that makes its way in steps, RANGING within another, VOLATILE in a crisis.

    The legs are those of a zigzag over the closes that turns once a close is ``macro_atr_mult`` average true
    ranges back from the extreme; the legs of a second one, with ``micro_atr_mult``, are the steps. The
    average true range is the mean over ``atr_period``, at the bar that turns the leg and relative to its
    close.

    A leg up is UP if at least the share ``progression_tolerance`` of the low turning points of the steps
    within it is higher than the low before, and there are at least four turning points, of both kinds; a leg
    down is DOWN if its highs fall likewise. Other legs are RANGING.

    A bar is VOLATILE, whatever its leg, if the deviation of the next ``atr_period`` logarithmic returns is
    more than ``vol_crisis_threshold`` times that of the last ``vol_lookback``.

    Not labelled: the first ``vol_lookback`` bars, and those from the last turning point on that is certain.
    A label is known once the turning point that ends its leg is, and the next ``atr_period`` bars are.
    """

    classes: ClassVar[tuple[str, ...]] = ("UP", "DOWN", "RANGING", "VOLATILE")
    ignored_names: ClassVar[Mapping[str, str]] = {
        "horizon": "a leg lasts until the price turns, however long that takes",
        "trending_threshold": "what makes a trend is progression_tolerance",
    }

    macro_atr_mult: Multiplier = 3.0
    """Average true ranges that turn a leg."""
    micro_atr_mult: Multiplier = 1.0
    """Average true ranges that turn a step within a leg; fewer than those."""
    atr_period: Annotated[int, Field(ge=2)] = 14
    """Bars of the average true range, and of the returns to come that make a crisis."""
    progression_tolerance: Annotated[float, Field(ge=0, le=1)] = 0.5
    """Share of the steps that must go on for a trend."""
    vol_crisis_threshold: Multiplier = 2.0
    """Deviation of the returns to come, relative to the usual one, above which it is a crisis."""
    vol_lookback: Annotated[int, Field(ge=2)] = 120
    """Bars of the usual deviation."""

    @model_validator(mode="after")
    def _steps_are_smaller_than_legs(self) -> Self:
        if self.micro_atr_mult >= self.macro_atr_mult:
            raise ValueError(
                f"micro_atr_mult ({self.micro_atr_mult:g}) must be less than "
                f"macro_atr_mult ({self.macro_atr_mult:g})"
            )
        return self

    @property
    def warmup_bars(self) -> int:
        """Those before the usual deviation and the average true range are known."""
        return max(self.vol_lookback, self.atr_period - 1)

    @property
    def horizon_bars(self) -> int:
        """0: a leg may last for any number of bars."""
        return 0

    def compute(self, bars: Bars, check: Callable[[], None]) -> Labels:
        """Label the bars of every leg whose end is certain."""
        check()
        begin = self.atr_period - 1  # where the average true range is known
        first = self.warmup_bars
        require_bars(bars, first + self.atr_period + 1, "regime")
        high, low, close = prices(bars, "high"), prices(bars, "low"), prices(bars, "close")
        check()
        closes = close[begin:]
        ranges = _true_ranges(high, low, close)
        check()
        ranges = pd.Series(ranges).rolling(self.atr_period).mean().to_numpy()[begin:] / closes
        check()
        ranges[ranges == 0] = np.inf  # where nothing has moved, nothing turns
        macro = trace(closes, self.macro_atr_mult * ranges, check)
        micro = trace(closes, self.micro_atr_mult * ranges, check)
        known = _known_at(macro, micro)
        turns = macro.starts[macro.turns][: len(known) + 1]
        last = min(begin + int(turns[-1]), len(bars) - self.atr_period) if len(known) else 0
        if first >= last:
            raise DataError(
                f"Of {len(bars)} bars, none after the first {first} is in a leg of "
                f"{self.macro_atr_mult:g} average true ranges that has ended, so regime labels none.",
                fix="Lower macro_atr_mult or vol_lookback, or use a longer range of dates.",
            )
        check()
        of_legs = _classify(turns, macro, micro, closes, self.progression_tolerance)
        check()
        labelled = np.arange(first, last)
        lengths = np.diff(turns)
        of_bars = slice(first - begin, last - begin)
        values = np.repeat(of_legs, lengths)[of_bars]
        leg_known_at = np.repeat(known + begin, lengths)[of_bars]
        check()
        values[self._volatile(close, check)[first:last]] = VOLATILE
        check()
        return labels_at(bars, labelled, values, np.maximum(leg_known_at, labelled + self.atr_period))

    def _volatile(self, close: FloatArray, check: Callable[[], None]) -> BoolArray:
        returns = np.diff(np.log(close), prepend=np.nan)
        before = _deviations(returns, self.vol_lookback, check)
        after = np.full(len(close), np.nan)
        after[: -self.atr_period] = _deviations(returns, self.atr_period, check)[self.atr_period :]
        return (before > 0) & (after > self.vol_crisis_threshold * before)


def _deviations(returns: FloatArray, window: int, check: Callable[[], None]) -> FloatArray:
    """Return the deviation of each bar's last returns; missing while there are too few."""
    deviations = np.empty(len(returns))
    for start in range(0, len(returns), _BLOCK_BARS):
        check()
        begin = max(0, start - window + 1)
        block = pd.Series(returns[begin : start + _BLOCK_BARS]).rolling(window).std().to_numpy()
        deviations[start : start + _BLOCK_BARS] = block[start - begin :]
    return deviations


def _true_ranges(high: FloatArray, low: FloatArray, close: FloatArray) -> FloatArray:
    ranges: FloatArray = high - low
    before = close[:-1]
    ranges[1:] = np.maximum(high[1:], before) - np.minimum(low[1:], before)
    return ranges


def _known_at(macro: Legs, micro: Legs) -> IntArray:
    """Return the bar at which each leg and all steps within it are certain; legs that are not have none."""
    ends = macro.starts[macro.turns][1:]
    turned = macro.ends[macro.turns][1:]
    # The steps up to a bar are certain once the run that has the bar is settled.
    run = np.searchsorted(micro.ends, ends, side="right")
    certain = run < len(micro.ends)
    return np.maximum(turned[certain], micro.ends[run[certain]])


def _classify(turns: IntArray, macro: Legs, micro: Legs, close: FloatArray, tolerance: float) -> IntArray:
    """Return UP, DOWN or RANGING for each leg between two of the turning points."""
    legs = len(turns) - 1
    rising = macro.rises[macro.turns][:legs]
    steps = micro.starts[micro.turns]
    from_low = micro.rises[micro.turns]
    within = np.searchsorted(steps, turns[1:], side="right") - np.searchsorted(steps, turns[:-1])
    values = np.full(legs, RANGING, dtype=np.int64)
    for value, of_legs, points, sign in (
        (UP, rising, steps[from_low], 1),
        (DOWN, ~rising, steps[~from_low], -1),
    ):
        leg = np.searchsorted(turns, points[:-1], side="right") - 1
        inside = (leg < legs) & (points[1:] <= turns[np.minimum(leg + 1, legs)])
        onward = sign * np.diff(close[points]) > 0
        pairs = np.bincount(leg[inside], minlength=legs)
        good = np.bincount(leg[inside & onward], minlength=legs)
        trend = of_legs & (within >= _FEWEST_TURNS) & (good / np.maximum(pairs, 1) >= tolerance)
        values[trend] = value
    return values
