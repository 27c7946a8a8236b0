"""Channels around the price, and how tightly one lies within another."""

from collections.abc import Mapping
from typing import Annotated, ClassVar

import numpy as np
import talib
from pydantic import Field

from ktrdr.features.indicators.base import INDICATORS, FloatArray, Indicator, Source, column
from ktrdr.features.indicators.windows import highest, lowest, ratio, without_warmup
from ktrdr.market.bars import Bars

# The squeeze has no parameter for it.
_SQUEEZE_ATR_PERIOD = 10


@INDICATORS.register("donchianchannels", "donchianchannelsindicator")
class DonchianChannels(Indicator):
    """Highest high and lowest low of ``period`` bars, the current one included, and their middle.

    Source: R. Donchian, Trend Following Methods in Commodity Price Analysis (Commodity Year Book, 1957).
    """

    outputs: ClassVar[tuple[str, ...]] = ("upper", "middle", "lower")
    ignored_names: ClassVar[Mapping[str, str]] = {"include_middle": "the middle is always there"}

    period: Annotated[int, Field(ge=2, le=500)] = 20

    @property
    def warmup_bars(self) -> int:
        """The range needs ``period`` bars."""
        return self.period - 1

    def compute(self, bars: Bars) -> Mapping[str, FloatArray]:
        """Return both ends of the range and the middle."""
        upper, lower = highest(column(bars, "high"), self.period), lowest(column(bars, "low"), self.period)
        return {"upper": upper, "middle": (upper + lower) / 2, "lower": lower}


@INDICATORS.register("keltnerchannels", "keltnerchannelsindicator")
class KeltnerChannels(Indicator):
    """Exponential average of the close, and ``multiplier`` average true ranges to each side.

    The ranges are averaged as in ``atr``, by Wilder.

    Source: C. Keltner, How To Make Money in Commodities (1960), in the form that L. Raschke gave it.
    """

    outputs: ClassVar[tuple[str, ...]] = ("upper", "middle", "lower")

    period: Annotated[int, Field(ge=2, le=500)] = 20
    atr_period: Annotated[int, Field(ge=2, le=200)] = 10
    multiplier: Annotated[float, Field(gt=0, le=10, allow_inf_nan=False)] = 2.0

    @property
    def warmup_bars(self) -> int:
        """The longer of the two averages."""
        return max(self.period - 1, self.atr_period)

    def compute(self, bars: Bars) -> Mapping[str, FloatArray]:
        """Return the channel and its middle."""
        middle, width = _keltner(bars, self.period, self.atr_period, self.multiplier)
        outputs = {"upper": middle + width, "middle": middle, "lower": middle - width}
        return without_warmup(outputs, self.warmup_bars)


@INDICATORS.register("squeezeintensity", "squeezeintensityindicator")
class SqueezeIntensity(Indicator):
    """How far the Bollinger bands lie within the Keltner channel, at the narrower side; 0 to ½.

    The smaller of the two gaps as a share of the channel's height; 0 where a band is outside, and where the
    channel has no height. The channel is made of the close and of true ranges over 10 bars.

    Source: the squeeze of J. Carter, Mastering the Trade (2005), as a number.
    """

    former_names: ClassVar[Mapping[str, str]] = {"period": "bb_period"}

    bb_period: Annotated[int, Field(ge=2, le=100)] = 20
    bb_multiplier: Annotated[float, Field(gt=0, le=5, allow_inf_nan=False)] = 2.0
    kc_period: Annotated[int, Field(ge=2, le=100)] = 20
    kc_multiplier: Annotated[float, Field(gt=0, le=5, allow_inf_nan=False)] = 2.0
    source: Source = "close"

    @property
    def warmup_bars(self) -> int:
        """The longest of the three averages."""
        return max(self.bb_period - 1, self.kc_period - 1, _SQUEEZE_ATR_PERIOD)

    def compute(self, bars: Bars) -> Mapping[str, FloatArray]:
        """Return the intensity."""
        upper, _, lower = talib.BBANDS(
            column(bars, self.source),
            timeperiod=self.bb_period,
            nbdevup=self.bb_multiplier,
            nbdevdn=self.bb_multiplier,
        )
        middle, width = _keltner(bars, self.kc_period, _SQUEEZE_ATR_PERIOD, self.kc_multiplier)
        gap = np.minimum(middle + width - upper, lower - (middle - width))
        return {"": ratio(np.maximum(gap, 0.0), 2 * width, undefined=0.0)}


def _keltner(bars: Bars, period: int, atr_period: int, multiplier: float) -> tuple[FloatArray, FloatArray]:
    """Return the middle of the channel, and its distance to either side."""
    high, low, close = column(bars, "high"), column(bars, "low"), column(bars, "close")
    average: FloatArray = talib.EMA(close, timeperiod=period)
    return average, multiplier * talib.ATR(high, low, close, timeperiod=atr_period)
