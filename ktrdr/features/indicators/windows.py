"""Rolling windows by TA-Lib, also of one bar, and exact where it leaves a rest."""

import numpy as np
import talib

from ktrdr.features.indicators.base import FloatArray


def highest(values: FloatArray, period: int) -> FloatArray:
    """Return the highest of ``period`` values; NaN until there are so many."""
    return values if period == 1 else talib.MAX(values, timeperiod=period)


def lowest(values: FloatArray, period: int) -> FloatArray:
    """Return the lowest of ``period`` values; NaN until there are so many."""
    return values if period == 1 else talib.MIN(values, timeperiod=period)


def middle(high: FloatArray, low: FloatArray, period: int) -> FloatArray:
    """Return the middle between the highest high and the lowest low of ``period`` bars."""
    return (high + low) / 2 if period == 1 else talib.MIDPRICE(high, low, timeperiod=period)


def total(values: FloatArray, period: int) -> FloatArray:
    """Return the sum of ``period`` values; NaN until there are so many.

    TA-Lib adds the value that comes and takes away the one that goes, which leaves what was rounded in
    between: it is not 0 again, and the ratio of two such rests is anything. Here the sum of zeros is 0.
    """
    if period == 1:
        return values
    sums = talib.SUM(values, timeperiod=period)
    sums[talib.MAX(np.abs(values), timeperiod=period) == 0] = 0.0
    return sums


def ratio(dividend: FloatArray, divisor: FloatArray, *, undefined: float) -> FloatArray:
    """Return the quotient; ``undefined`` where the divisor is 0, NaN where either is NaN."""
    quotient = np.where(np.isnan(dividend), np.nan, undefined)
    np.divide(dividend, divisor, out=quotient, where=divisor != 0)
    return quotient


def shifted(values: FloatArray, bars: int) -> FloatArray:
    """Return the value of ``bars`` bars ago; NaN where there is none."""
    if bars == 0:
        return values
    earlier = np.full(len(values), np.nan)
    earlier[bars:] = values[:-bars]
    return earlier


def without_warmup(outputs: dict[str, FloatArray], warmup_bars: int) -> dict[str, FloatArray]:
    """Return copies of the outputs that all start after the same warm-up."""
    return {
        name: np.concatenate((np.full(min(warmup_bars, len(values)), np.nan), values[warmup_bars:]))
        for name, values in outputs.items()
    }
