"""Indicators of how fast prices move, and of where they are within their recent range."""

from collections.abc import Mapping
from typing import Annotated, ClassVar

import numpy as np
import talib
from pydantic import Field

from ktrdr.features.indicators.base import INDICATORS, FloatArray, Indicator, Source, column
from ktrdr.features.indicators.windows import highest, lowest, ratio
from ktrdr.market.bars import Bars


@INDICATORS.register("rsi", "rsiindicator")
class Rsi(Indicator):
    """Relative strength index, 0 to 100: the share of gains in all movement, by Wilder's averages.

    50 where nothing moved.

    Source: J. W. Wilder, New Concepts in Technical Trading Systems (1978), section VI.
    """

    period: Annotated[int, Field(ge=2, le=100)] = 14
    source: Source = "close"

    @property
    def warmup_bars(self) -> int:
        """The first average needs ``period`` changes."""
        return self.period

    def compute(self, bars: Bars) -> Mapping[str, FloatArray]:
        """Return the index."""
        # CMO is (gains - losses) / (gains + losses) of the same averages. TA-Lib's RSI says 0, "all
        # losses", where there was neither gain nor loss; its CMO says 0 there too, which is the middle.
        return {"": talib.CMO(column(bars, self.source), timeperiod=self.period) / 2 + 50}


@INDICATORS.register("roc", "rocindicator", "rateofchange")
class Roc(Indicator):
    """Rate of change in percent over ``period`` bars: 100 · (x - x[-period]) / x[-period].

    NaN where the earlier value is zero.
    """

    period: Annotated[int, Field(ge=1, le=100)] = 10
    source: Source = "close"

    @property
    def warmup_bars(self) -> int:
        """A change needs the value ``period`` bars ago."""
        return self.period

    def compute(self, bars: Bars) -> Mapping[str, FloatArray]:
        """Return the rate of change."""
        values = column(bars, self.source)
        change = talib.ROC(values, timeperiod=self.period)
        # TA-Lib says 0, "unchanged", where the earlier value is 0.
        change[self.period :][values[: -self.period] == 0] = np.nan
        return {"": change}


@INDICATORS.register("momentum", "momentumindicator")
class Momentum(Indicator):
    """Difference to ``period`` bars ago, in units of the price: x - x[-period]."""

    period: Annotated[int, Field(ge=1, le=100)] = 10
    source: Source = "close"

    @property
    def warmup_bars(self) -> int:
        """A difference needs the value ``period`` bars ago."""
        return self.period

    def compute(self, bars: Bars) -> Mapping[str, FloatArray]:
        """Return the difference."""
        return {"": talib.MOM(column(bars, self.source), timeperiod=self.period)}


@INDICATORS.register("stochastic", "stochasticindicator")
class Stochastic(Indicator):
    """Slow stochastic oscillator, 0 to 100: where the close is within the range of ``k_period`` bars.

    ``k`` is smoothed by a simple mean over ``smooth_k`` bars, ``d`` is the mean of ``k`` over ``d_period``.
    A range of no height counts as 50.

    Source: G. Lane, Lane's Stochastics (Technical Analysis of Stocks & Commodities 2:3, 1984).
    """

    outputs: ClassVar[tuple[str, ...]] = ("k", "d")

    k_period: Annotated[int, Field(ge=1, le=100)] = 14
    d_period: Annotated[int, Field(ge=1, le=20)] = 3
    smooth_k: Annotated[int, Field(ge=1, le=20)] = 3

    @property
    def warmup_bars(self) -> int:
        """Three windows, one after the other."""
        return self.k_period + self.smooth_k + self.d_period - 3

    def compute(self, bars: Bars) -> Mapping[str, FloatArray]:
        """Return ``k`` and ``d``."""
        k = talib.MA(100 * _place_in_range(bars, self.k_period), timeperiod=self.smooth_k)
        d = talib.MA(k, timeperiod=self.d_period)
        k[: self.warmup_bars] = np.nan
        return {"k": k, "d": d}


@INDICATORS.register("williamsr", "williamsrindicator")
class WilliamsR(Indicator):
    """Williams' %R, -100 (close at the lowest low of ``period`` bars) to 0 (at the highest high).

    A range of no height counts as -50.

    Source: L. Williams, How I Made One Million Dollars Last Year Trading Commodities (1973).
    """

    period: Annotated[int, Field(ge=1, le=100)] = 14

    @property
    def warmup_bars(self) -> int:
        """The range needs ``period`` bars."""
        return self.period - 1

    def compute(self, bars: Bars) -> Mapping[str, FloatArray]:
        """Return the place in the range, less 100."""
        return {"": 100 * _place_in_range(bars, self.period) - 100}


@INDICATORS.register("cci", "cciindicator")
class Cci(Indicator):
    """Commodity channel index: distance of the typical price from its mean, in 0.015 mean deviations.

    0 where nothing moved.

    Source: D. Lambert, Commodity Channel Index (Commodities magazine, October 1980).
    """

    period: Annotated[int, Field(ge=2, le=100)] = 20

    @property
    def warmup_bars(self) -> int:
        """The mean needs ``period`` bars."""
        return self.period - 1

    def compute(self, bars: Bars) -> Mapping[str, FloatArray]:
        """Return the index."""
        high, low, close = column(bars, "high"), column(bars, "low"), column(bars, "close")
        return {"": talib.CCI(high, low, close, timeperiod=self.period)}


def _place_in_range(bars: Bars, period: int) -> FloatArray:
    """Return where the close is between lowest low (0) and highest high (1) of ``period`` bars.

    TA-Lib's STOCH and WILLR say 0 for a range of no height, which is one of its ends; here it is the middle.
    """
    top, bottom = highest(column(bars, "high"), period), lowest(column(bars, "low"), period)
    return ratio(column(bars, "close") - bottom, top - bottom, undefined=0.5)
