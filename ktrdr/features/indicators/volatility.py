"""Indicators of how far prices swing."""

from collections.abc import Mapping
from typing import Annotated, ClassVar

import numpy as np
import talib
from pydantic import Field

from ktrdr.features.indicators.base import INDICATORS, FloatArray, Indicator, Source, column
from ktrdr.features.indicators.windows import ratio, total
from ktrdr.market.bars import Bars


@INDICATORS.register("atr", "atrindicator")
class Atr(Indicator):
    """Average true range, in units of the price, by Wilder's average from the mean of the first ``period``.

    Source: J. W. Wilder, New Concepts in Technical Trading Systems (1978), section III.
    """

    period: Annotated[int, Field(ge=1, le=100)] = 14

    @property
    def warmup_bars(self) -> int:
        """The first true range needs the close before it."""
        return self.period

    def compute(self, bars: Bars) -> Mapping[str, FloatArray]:
        """Return the average."""
        high, low, close = column(bars, "high"), column(bars, "low"), column(bars, "close")
        return {"": talib.ATR(high, low, close, timeperiod=self.period)}


class _Bands(Indicator):
    period: Annotated[int, Field(ge=2, le=200)] = 20
    multiplier: Annotated[float, Field(gt=0, le=10, allow_inf_nan=False)] = 2.0
    source: Source = "close"

    @property
    def warmup_bars(self) -> int:
        """The mean needs ``period`` bars."""
        return self.period - 1

    def _bands(self, bars: Bars) -> tuple[FloatArray, FloatArray, FloatArray]:
        upper, middle, lower = talib.BBANDS(
            column(bars, self.source),
            timeperiod=self.period,
            nbdevup=self.multiplier,
            nbdevdn=self.multiplier,
        )
        return upper, middle, lower


@INDICATORS.register("bollingerbands", "bollingerbandsindicator", "bbands")
class BollingerBands(_Bands):
    """Bollinger bands: a simple mean, and ``multiplier`` population standard deviations to each side.

    Source: J. Bollinger, Bollinger on Bollinger Bands (2001), chapter 7.
    """

    outputs: ClassVar[tuple[str, ...]] = ("upper", "middle", "lower")

    def compute(self, bars: Bars) -> Mapping[str, FloatArray]:
        """Return the three bands."""
        upper, middle, lower = self._bands(bars)
        return {"upper": upper, "middle": middle, "lower": lower}


@INDICATORS.register("bollingerbandwidth", "bollingerbandwidthindicator")
class BollingerBandWidth(_Bands):
    """Width of the Bollinger bands relative to their middle: (upper - lower) / middle.

    NaN where the middle is zero.

    Source: J. Bollinger, Bollinger on Bollinger Bands (2001), chapter 8.
    """

    def compute(self, bars: Bars) -> Mapping[str, FloatArray]:
        """Return the relative width."""
        upper, _, lower = self._bands(bars)
        # The middle of the bands is not quite 0 where every value is.
        middle = total(column(bars, self.source), self.period) / self.period
        return {"": ratio(upper - lower, middle, undefined=np.nan)}
