"""Which bar of a coarser timeframe is known at which bar of the base timeframe."""

import numpy as np
import pandas as pd

from ktrdr.market.timeframe import Timeframe
from ktrdr.market.times import Int64Array, to_microseconds


def closed_bar_positions(
    base_opens: pd.DatetimeIndex,
    base_timeframe: Timeframe,
    coarse_opens: pd.DatetimeIndex,
    coarse_timeframe: Timeframe,
) -> Int64Array:
    """Return, for each base bar, the position of the last coarse bar that has closed by its close.

    A coarse bar that closes at the very moment at which the base bar does is known; one that has only opened
    is not. Where none has closed yet the position is -1. After a hole the last bar before it stays the last.

    Args:
        base_opens: open times of the base bars, aware.
        base_timeframe: how long those are.
        coarse_opens: open times of the coarse bars, aware and increasing.
        coarse_timeframe: how long those are.

    Raises:
        DataError: the times have no time zone.
    """
    base_closes = base_timeframe.close_microseconds(to_microseconds(base_opens))
    coarse_closes = coarse_timeframe.close_microseconds(to_microseconds(coarse_opens))
    return np.searchsorted(coarse_closes, base_closes, side="right").astype(np.int64) - 1
