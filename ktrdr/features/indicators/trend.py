"""Indicators of direction: moving averages and what is built on them."""

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal, Self

import numpy as np
import talib
from pydantic import Field, model_validator

from ktrdr.features.indicators.base import INDICATORS, FloatArray, Indicator, Source, column
from ktrdr.features.indicators.windows import ratio, total
from ktrdr.market.bars import Bars


@INDICATORS.register("sma", "smaindicator", "simplemovingaverage", "simplemovingaverageindicator")
class Sma(Indicator):
    """Simple moving average: the mean of ``period`` values."""

    period: Annotated[int, Field(ge=2, le=500)] = 20
    source: Source = "close"

    @property
    def warmup_bars(self) -> int:
        """The mean needs ``period`` bars."""
        return self.period - 1

    def compute(self, bars: Bars) -> Mapping[str, FloatArray]:
        """Return the average."""
        return {"": talib.SMA(column(bars, self.source), timeperiod=self.period)}


@INDICATORS.register("ema", "emaindicator", "exponentialmovingaverage", "exponentialmovingaverageindicator")
class Ema(Indicator):
    """Exponential moving average: e += (x - e) · 2 / (period + 1), from the mean of the first ``period``."""

    ignored_names: ClassVar[Mapping[str, str]] = {
        "adjust": "the average starts from the mean of its first period, whatever it says"
    }

    period: Annotated[int, Field(ge=1, le=500)] = 20
    source: Source = "close"

    @property
    def warmup_bars(self) -> int:
        """The first mean needs ``period`` bars."""
        return self.period - 1

    def compute(self, bars: Bars) -> Mapping[str, FloatArray]:
        """Return the average."""
        return {"": talib.EMA(column(bars, self.source), timeperiod=self.period)}


@INDICATORS.register("wma", "wmaindicator", "weightedmovingaverage", "weightedmovingaverageindicator")
class Wma(Indicator):
    """Weighted moving average: weights 1 to ``period``, the newest the heaviest."""

    period: Annotated[int, Field(ge=2, le=500)] = 20
    source: Source = "close"

    @property
    def warmup_bars(self) -> int:
        """The mean needs ``period`` bars."""
        return self.period - 1

    def compute(self, bars: Bars) -> Mapping[str, FloatArray]:
        """Return the average."""
        return {"": talib.WMA(column(bars, self.source), timeperiod=self.period)}


@INDICATORS.register("distancefromma", "distancefrommaindicator")
class DistanceFromMa(Indicator):
    """Distance from a moving average in percent of that: 100 · (x - average) / average.

    NaN where the average is zero.
    """

    period: Annotated[int, Field(ge=1, le=200)] = 20
    ma_type: Literal["SMA", "EMA"] = "SMA"
    source: Source = "close"

    @property
    def warmup_bars(self) -> int:
        """The average needs ``period`` bars."""
        return self.period - 1

    def compute(self, bars: Bars) -> Mapping[str, FloatArray]:
        """Return the distance."""
        values = column(bars, self.source)
        if self.ma_type == "EMA":
            average = talib.EMA(values, timeperiod=self.period)
        else:
            average = total(values, self.period) / self.period
        return {"": 100 * ratio(values - average, average, undefined=np.nan)}


@INDICATORS.register("macd", "macdindicator")
class Macd(Indicator):
    """Moving average convergence/divergence, in units of the price.

    ``line`` is the fast less the slow exponential average, both from the bar at which the slow one starts;
    ``signal`` is the exponential average of the line, ``histogram`` the line less the signal.

    Source: G. Appel, The Moving Average Convergence-Divergence Trading Method (1979).
    """

    outputs: ClassVar[tuple[str, ...]] = ("line", "signal", "histogram")
    former_names: ClassVar[Mapping[str, str]] = {
        "fast": "fast_period",
        "slow": "slow_period",
        "signal": "signal_period",
    }
    ignored_names: ClassVar[Mapping[str, str]] = {
        "period": "there are three, fast_period, slow_period and signal_period"
    }

    fast_period: Annotated[int, Field(ge=2, le=100)] = 12
    slow_period: Annotated[int, Field(ge=2, le=200)] = 26
    signal_period: Annotated[int, Field(ge=1, le=50)] = 9
    source: Source = "close"

    @model_validator(mode="after")
    def _fast_is_faster(self) -> Self:
        # TA-Lib would swap them without a word.
        if self.fast_period >= self.slow_period:
            raise ValueError(
                f"fast_period ({self.fast_period}) must be less than slow_period ({self.slow_period})"
            )
        return self

    @property
    def warmup_bars(self) -> int:
        """The slow average, then the signal's."""
        return self.slow_period + self.signal_period - 2

    def compute(self, bars: Bars) -> Mapping[str, FloatArray]:
        """Return line, signal and histogram."""
        line, signal, histogram = talib.MACD(
            column(bars, self.source),
            fastperiod=self.fast_period,
            slowperiod=self.slow_period,
            signalperiod=self.signal_period,
        )
        return {"line": line, "signal": signal, "histogram": histogram}


@INDICATORS.register("adx", "adxindicator")
class Adx(Indicator):
    """Average directional index and the two directional indicators, 0 to 100, by Wilder's averages.

    Source: J. W. Wilder, New Concepts in Technical Trading Systems (1978), section IV.
    """

    outputs: ClassVar[tuple[str, ...]] = ("adx", "plus_di", "minus_di")
    ignored_names: ClassVar[Mapping[str, str]] = {"source": "it is made of highs, lows and closes"}

    period: Annotated[int, Field(ge=2, le=200)] = 14

    @property
    def warmup_bars(self) -> int:
        """One period for the directional indicators, another for their average."""
        return 2 * self.period - 1

    def compute(self, bars: Bars) -> Mapping[str, FloatArray]:
        """Return the average and both directional indicators."""
        high, low, close = column(bars, "high"), column(bars, "low"), column(bars, "close")
        adx = talib.ADX(high, low, close, timeperiod=self.period)
        plus_di = talib.PLUS_DI(high, low, close, timeperiod=self.period)
        minus_di = talib.MINUS_DI(high, low, close, timeperiod=self.period)
        plus_di[: self.warmup_bars] = np.nan
        minus_di[: self.warmup_bars] = np.nan
        return {"adx": adx, "plus_di": plus_di, "minus_di": minus_di}


@INDICATORS.register("aroon", "aroonindicator")
class Aroon(Indicator):
    """Aroon, 0 to 100: how recent the highest high (``up``) and the lowest low (``down``) are.

    100 · (period - bars since the extreme) / period, over the bar and ``period`` bars before it, the newest
    of equal extremes; ``oscillator`` is up less down.

    Source: T. Chande, A Time Price Oscillator (Technical Analysis of Stocks & Commodities 13:9, 1995).
    """

    outputs: ClassVar[tuple[str, ...]] = ("up", "down", "oscillator")
    ignored_names: ClassVar[Mapping[str, str]] = {"include_oscillator": "the oscillator is always there"}

    period: Annotated[int, Field(ge=2, le=200)] = 14

    @property
    def warmup_bars(self) -> int:
        """``period`` bars before the first that has a value."""
        return self.period

    def compute(self, bars: Bars) -> Mapping[str, FloatArray]:
        """Return up, down and their difference."""
        down, up = talib.AROON(column(bars, "high"), column(bars, "low"), timeperiod=self.period)
        return {"up": up, "down": down, "oscillator": up - down}


@INDICATORS.register("parabolicsar", "parabolicsarindicator")
class ParabolicSar(Indicator):
    """Parabolic stop and reverse, a price: below the bars of a rise, above those of a fall.

    The first direction is that of the first directional movement.

    Source: J. W. Wilder, New Concepts in Technical Trading Systems (1978), section II.
    """

    initial_af: Annotated[float, Field(ge=0.001, le=0.1, allow_inf_nan=False)] = 0.02
    step_af: Annotated[float, Field(ge=0.001, le=0.1, allow_inf_nan=False)] = 0.02
    max_af: Annotated[float, Field(ge=0.01, le=1.0, allow_inf_nan=False)] = 0.2

    @property
    def warmup_bars(self) -> int:
        """The first direction needs two bars."""
        return 1

    def compute(self, bars: Bars) -> Mapping[str, FloatArray]:
        """Return the stop."""
        stop = talib.SAREXT(
            column(bars, "high"),
            column(bars, "low"),
            accelerationinitlong=self.initial_af,
            accelerationlong=self.step_af,
            accelerationmaxlong=self.max_af,
            accelerationinitshort=self.initial_af,
            accelerationshort=self.step_af,
            accelerationmaxshort=self.max_af,
        )
        return {"": np.abs(stop)}  # SAREXT marks the stop of a fall by a minus sign
