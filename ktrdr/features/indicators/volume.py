"""Indicators of where the volume goes."""

from collections.abc import Mapping
from typing import Annotated

import numpy as np
import talib
from pydantic import Field

from ktrdr.features.indicators.base import INDICATORS, FloatArray, Indicator, column
from ktrdr.features.indicators.windows import ratio, total
from ktrdr.market.bars import Bars

# Typical prices that are equal as decimals may differ by so much, relatively, as binary fractions.
_ROUNDING = 1e-12


@INDICATORS.register("obv", "obvindicator")
class Obv(Indicator):
    """On-balance volume: a running sum of volume, added on a rise of the close and subtracted on a fall.

    It starts at the volume of the first bar, so that its level depends on where the data starts.

    Source: J. Granville, Granville's New Key to Stock Market Profits (1963).
    """

    @property
    def warmup_bars(self) -> int:
        """It has a value from the first bar."""
        return 0

    def compute(self, bars: Bars) -> Mapping[str, FloatArray]:
        """Return the running sum."""
        return {"": talib.OBV(column(bars, "close"), column(bars, "volume"))}


@INDICATORS.register("mfi", "mfiindicator")
class Mfi(Indicator):
    """Money flow index, 0 to 100: the share of volume · price that went with rises of the typical price.

    50 where no money flowed: the price stood still, or there is no volume.

    Source: G. Quong and A. Soudack, Volume-Weighted RSI: Money Flow (Technical Analysis of Stocks &
    Commodities 7:3, 1989).
    """

    period: Annotated[int, Field(ge=2, le=100)] = 14

    @property
    def warmup_bars(self) -> int:
        """It needs ``period`` changes."""
        return self.period

    def compute(self, bars: Bars) -> Mapping[str, FloatArray]:
        """Return the index."""
        high, low, close = column(bars, "high"), column(bars, "low"), column(bars, "close")
        volume = column(bars, "volume")
        index = talib.MFI(high, low, close, volume, timeperiod=self.period)
        # TA-Lib says 0, "all out", where nothing flowed.
        typical = talib.TYPPRICE(high, low, close)
        moved = np.abs(np.diff(typical, prepend=typical[:1])) > _ROUNDING * np.abs(typical)
        flow = np.where(moved, volume, 0.0)
        index[talib.MAX(flow, timeperiod=self.period) == 0] = 50
        index[: self.warmup_bars] = np.nan
        return {"": index}


@INDICATORS.register("vwap", "vwapindicator")
class Vwap(Indicator):
    """Volume-weighted average price over ``period`` bars, or, with 0, from the first bar on.

    Of the typical price, (high + low + close) / 3, or, without ``use_typical_price``, of the close. NaN where
    the bars have no volume.

    Source: S. Berkowitz, D. Logue and E. Noser, The Total Cost of Transactions on the NYSE (Journal of
    Finance 43:1, 1988).
    """

    period: Annotated[int, Field(ge=0, le=200)] = 20
    use_typical_price: bool = True

    @property
    def warmup_bars(self) -> int:
        """``period`` bars, or none for the average of all."""
        return max(self.period - 1, 0)

    def compute(self, bars: Bars) -> Mapping[str, FloatArray]:
        """Return the average."""
        price, volume = column(bars, "close"), column(bars, "volume")
        if self.use_typical_price:
            price = talib.TYPPRICE(column(bars, "high"), column(bars, "low"), price)
        flow = price * volume
        if self.period == 0:
            return {"": ratio(np.cumsum(flow), np.cumsum(volume), undefined=np.nan)}
        return {"": ratio(total(flow, self.period), total(volume, self.period), undefined=np.nan)}


@INDICATORS.register("volumeratio", "volumeratioindicator")
class VolumeRatio(Indicator):
    """Volume relative to its mean over ``period`` bars, the current one included; 1 where there is none."""

    period: Annotated[int, Field(ge=2, le=100)] = 20

    @property
    def warmup_bars(self) -> int:
        """The mean needs ``period`` bars."""
        return self.period - 1

    def compute(self, bars: Bars) -> Mapping[str, FloatArray]:
        """Return the ratio."""
        volume = column(bars, "volume")
        return {"": ratio(volume * self.period, total(volume, self.period), undefined=1.0)}
