"""Rolling windows, also of one bar: by TA-Lib, but for sums, in which it leaves a rest."""

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
    between: the sum of zeros is not 0 again, and the ratio of two such rests is anything. Here nothing is
    taken away: each window is the end of one block of ``period`` values and the beginning of the next.
    """
    if period == 1 or len(values) < period:
        return values if period == 1 else np.full(len(values), np.nan)
    blocks = np.zeros((-(-len(values) // period), period))
    blocks.reshape(-1)[: len(values)] = values
    sums = np.cumsum(blocks, axis=1).reshape(-1)[: len(values)]
    ends = np.cumsum(blocks[:, ::-1], axis=1)[:, ::-1]
    ends[:, 0] = 0.0  # a window that is a block has no other part
    sums[period - 1 :] += ends.reshape(-1)[: len(values) - period + 1]
    sums[: period - 1] = np.nan
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
