"""A stop that follows the price at a distance of some average ranges."""

from collections.abc import Mapping
from typing import Annotated, ClassVar

import numpy as np
import talib
from pydantic import Field

from ktrdr.features.indicators.base import INDICATORS, FloatArray, Indicator, column
from ktrdr.market.bars import Bars

# As Python's floats, a few times faster in a loop than numpy's, and few enough to stay small.
_BARS_AT_ONCE = 1 << 16


@INDICATORS.register("supertrend", "supertrendindicator")
class SuperTrend(Indicator):
    """Supertrend: a price that trails a rise from below and a fall from above, and the direction, 1 or -1.

    The bands are the middle of the bar ± ``multiplier`` average true ranges, averaged as in ``atr``, by
    Wilder. The lower band only rises until the previous close was below it, the upper one only falls until
    that was above it. A rise follows the lower band until a close is below that, a fall the upper band until
    a close is above it. It begins as a rise.

    Source: O. Seban, Tout le monde mérite d'être riche (2009), as it is commonly computed.
    """

    outputs: ClassVar[tuple[str, ...]] = ("trend", "direction")

    period: Annotated[int, Field(ge=2, le=200)] = 10
    multiplier: Annotated[float, Field(gt=0, le=10, allow_inf_nan=False)] = 3.0

    @property
    def warmup_bars(self) -> int:
        """The average range needs ``period`` bars and the close before them."""
        return self.period

    def compute(self, bars: Bars) -> Mapping[str, FloatArray]:
        """Return the trailing price and the direction."""
        high, low, close = column(bars, "high"), column(bars, "low"), column(bars, "close")
        distance = self.multiplier * talib.ATR(high, low, close, timeperiod=self.period)
        middle = (high + low) / 2
        start = self.warmup_bars
        trend, rises = _follow(
            (middle + distance)[start:], (middle - distance)[start:], np.ascontiguousarray(close[start:])
        )
        nothing = np.full(min(start, len(close)), np.nan)
        return {
            "trend": np.concatenate((nothing, trend)),
            "direction": np.concatenate((nothing, np.where(rises, 1.0, -1.0))),
        }


def _follow(uppers: FloatArray, lowers: FloatArray, closes: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return the band that is followed, and 1 where it is the lower one.

    Each bar depends on the one before, so it is a loop: 0.4 s for a million bars.
    """
    trend, rises = np.empty(len(closes)), np.empty(len(closes))
    upper, lower, previous, rising = np.inf, -np.inf, 0.0, True
    for start in range(0, len(closes), _BARS_AT_ONCE):
        block = slice(start, start + _BARS_AT_ONCE)
        followed, directions = [], []
        for next_upper, next_lower, close in zip(
            uppers[block].tolist(), lowers[block].tolist(), closes[block].tolist(), strict=True
        ):
            if next_upper < upper or previous > upper:
                upper = next_upper
            if next_lower > lower or previous < lower:
                lower = next_lower
            rising = close >= lower if rising else close > upper
            followed.append(lower if rising else upper)
            directions.append(rising)
            previous = close
        trend[block], rises[block] = followed, directions
    return trend, rises
