"""Oscillators that TA-Lib has not."""

from collections.abc import Mapping
from typing import Annotated, ClassVar

import numpy as np
import talib
from pydantic import Field

from ktrdr.features.indicators.base import INDICATORS, FloatArray, Indicator, column
from ktrdr.features.indicators.windows import highest, lowest, ratio, shifted, total, without_warmup
from ktrdr.market.bars import Bars

# The transform of 1 is infinite.
_NEARLY_ONE = 0.999


@INDICATORS.register("fishertransform", "fishertransformindicator")
class FisherTransform(Indicator):
    """Fisher transform of where the bar's middle is within the range of ``period`` bars; ±3.8 at most.

    ``fisher`` is ½ · ln((1 + x) / (1 - x)) of that place x, -1 (lowest low) to 1 (highest high), cut at
    ±0.999; averaged exponentially over ``smoothing`` bars. ``signal`` is ``fisher`` one bar ago. A range of
    no height counts as its middle.

    Source: J. Ehlers, Using the Fisher Transform (Technical Analysis of Stocks & Commodities 20:11, 2002),
    who smooths the place before rather than the transform after.
    """

    outputs: ClassVar[tuple[str, ...]] = ("fisher", "signal")

    period: Annotated[int, Field(ge=2, le=100)] = 10
    smoothing: Annotated[int, Field(ge=1, le=20)] = 3

    @property
    def warmup_bars(self) -> int:
        """The range, its average, and one bar for the signal."""
        return self.period + self.smoothing - 1

    def compute(self, bars: Bars) -> Mapping[str, FloatArray]:
        """Return the transform and its previous value."""
        high, low = column(bars, "high"), column(bars, "low")
        top, bottom = highest(high, self.period), lowest(low, self.period)
        place = ratio(high + low - top - bottom, top - bottom, undefined=0.0)
        fisher = talib.EMA(np.arctanh(np.clip(place, -_NEARLY_ONE, _NEARLY_ONE)), timeperiod=self.smoothing)
        return without_warmup({"fisher": fisher, "signal": shifted(fisher, 1)}, self.warmup_bars)


@INDICATORS.register("rvi", "rviindicator")
class Rvi(Indicator):
    """Relative vigor index, -1 to 1: how much of their ranges bars keep from open to close.

    Sums over ``period`` bars of close - open and of high - low, each smoothed over four bars with the weights
    1, 2, 2, 1; their ratio. ``signal`` is its simple mean over ``signal_period``. 0 where no bar had a range.

    Source: J. Ehlers, Relative Vigor Index (Technical Analysis of Stocks & Commodities 20:1, 2002), whose
    signal has the weights 1, 2, 2, 1 and no period.
    """

    outputs: ClassVar[tuple[str, ...]] = ("rvi", "signal")

    period: Annotated[int, Field(ge=4, le=100)] = 10
    signal_period: Annotated[int, Field(ge=1, le=50)] = 4

    @property
    def warmup_bars(self) -> int:
        """Three bars before the first smoothed one, the sums, and the signal's mean."""
        return self.period + self.signal_period + 1

    def compute(self, bars: Bars) -> Mapping[str, FloatArray]:
        """Return the index and its signal."""
        vigor = _smoothed(column(bars, "close") - column(bars, "open"))
        height = _smoothed(column(bars, "high") - column(bars, "low"))
        index = ratio(total(vigor, self.period), total(height, self.period), undefined=0.0)
        signal = talib.MA(index, timeperiod=self.signal_period)
        return without_warmup({"rvi": index, "signal": signal}, self.warmup_bars)


def _smoothed(values: FloatArray) -> FloatArray:
    """Return the mean of four values, the two in the middle twice as heavy."""
    smoothed = np.full(len(values), np.nan)
    smoothed[3:] = (values[3:] + 2 * values[2:-1] + 2 * values[1:-2] + values[:-3]) / 6
    return smoothed
