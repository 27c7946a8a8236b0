"""Indicators of whether volume goes with closes near the high or near the low of a bar."""

from collections.abc import Mapping
from typing import Annotated, ClassVar

import numpy as np
import talib
from pydantic import Field

from ktrdr.features.indicators.base import INDICATORS, FloatArray, Indicator, column
from ktrdr.features.indicators.windows import ratio, shifted, total, without_warmup
from ktrdr.market.bars import Bars

_CHANGE_BARS = 10
_MOMENTUM_BARS = 21
_STRENGTH_BARS = 50
_CMF_MOMENTUM_BARS = 5
_CMF_SIGNAL_PERIOD = 9


@INDICATORS.register("adline", "adlineindicator")
class AdLine(Indicator):
    """Accumulation/distribution line: a running sum of volume · where the close is within its bar.

    ``mf_multiplier`` is ((close - low) - (high - close)) / (high - low), -1 to 1, and 0 for a bar of no
    height; ``mf_volume`` is that times the volume; ``line`` is the sum of it from the first bar on, or, with
    ``use_sma_smoothing``, the mean of that sum over ``smoothing_period`` bars. Of the line, ``roc_10`` is the
    change over 10 bars in percent, ``momentum_21`` the difference over 21 bars, and ``relative_strength`` the
    distance from its mean of 50 bars in percent of that; NaN relative to zero.

    The level of the line depends on where the data starts, and so does what is relative to it.

    Source: M. Chaikin; in J. Murphy, Technical Analysis of the Financial Markets (1999), chapter 7.
    """

    outputs: ClassVar[tuple[str, ...]] = (
        "line",
        "mf_multiplier",
        "mf_volume",
        "roc_10",
        "momentum_21",
        "relative_strength",
    )

    use_sma_smoothing: bool = False
    smoothing_period: Annotated[int, Field(ge=2, le=200)] = 21

    @property
    def warmup_bars(self) -> int:
        """The mean of 50 bars, of a line that may be a mean itself."""
        return _STRENGTH_BARS - 1 + (self.smoothing_period - 1 if self.use_sma_smoothing else 0)

    def compute(self, bars: Bars) -> Mapping[str, FloatArray]:
        """Return the line, what it is made of, and how it moves."""
        multiplier, flow = _money_flow(bars)
        line = np.cumsum(flow)
        if self.use_sma_smoothing:
            line = talib.SMA(line, timeperiod=self.smoothing_period)
        before = shifted(line, _CHANGE_BARS)
        mean = total(line, _STRENGTH_BARS) / _STRENGTH_BARS
        outputs = {
            "line": line,
            "mf_multiplier": multiplier,
            "mf_volume": flow,
            "roc_10": 100 * ratio(line - before, before, undefined=np.nan),
            "momentum_21": line - shifted(line, _MOMENTUM_BARS),
            "relative_strength": 100 * ratio(line - mean, mean, undefined=np.nan),
        }
        return without_warmup(outputs, self.warmup_bars)


@INDICATORS.register("cmf", "cmfindicator")
class Cmf(Indicator):
    """Chaikin money flow, -1 to 1: volume weighted by where the close is within its bar, over all volume.

    ``mf_multiplier`` and ``mf_volume`` are those of ``adline``; ``cmf`` is the sum of the latter over
    ``period`` bars by the sum of the volume, 0 where there is none. Of ``cmf``, ``momentum`` is the
    difference over 5 bars, ``signal`` the exponential average over 9, ``histogram`` the distance from that;
    ``above_zero`` and ``below_zero`` are 1 where it is so, else 0.

    Source: M. Chaikin; in S. Achelis, Technical Analysis from A to Z (2000).
    """

    outputs: ClassVar[tuple[str, ...]] = (
        "cmf",
        "mf_multiplier",
        "mf_volume",
        "momentum",
        "signal",
        "histogram",
        "above_zero",
        "below_zero",
    )

    period: Annotated[int, Field(ge=2, le=500)] = 21

    @property
    def warmup_bars(self) -> int:
        """The sums, then the signal's average."""
        return self.period - 1 + max(_CMF_MOMENTUM_BARS, _CMF_SIGNAL_PERIOD - 1)

    def compute(self, bars: Bars) -> Mapping[str, FloatArray]:
        """Return the flow, what it is made of, and how it moves."""
        multiplier, flow = _money_flow(bars)
        volume = total(column(bars, "volume"), self.period)
        cmf = np.clip(ratio(total(flow, self.period), volume, undefined=0.0), -1.0, 1.0)
        signal = talib.EMA(cmf, timeperiod=_CMF_SIGNAL_PERIOD)
        outputs = {
            "cmf": cmf,
            "mf_multiplier": multiplier,
            "mf_volume": flow,
            "momentum": cmf - shifted(cmf, _CMF_MOMENTUM_BARS),
            "signal": signal,
            "histogram": cmf - signal,
            "above_zero": (cmf > 0).astype(np.float64),
            "below_zero": (cmf < 0).astype(np.float64),
        }
        return without_warmup(outputs, self.warmup_bars)


def _money_flow(bars: Bars) -> tuple[FloatArray, FloatArray]:
    """Return where the close is within its bar, -1 to 1, and that times the volume."""
    high, low, close = column(bars, "high"), column(bars, "low"), column(bars, "close")
    multiplier = ratio((close - low) - (high - close), high - low, undefined=0.0)
    return multiplier, multiplier * column(bars, "volume")
