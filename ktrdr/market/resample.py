"""Coarser bars from finer ones."""

import numpy as np

from ktrdr.errors import DataError
from ktrdr.market.bars import BAR_COLUMNS, Bars
from ktrdr.market.columns import make_bars
from ktrdr.market.timeframe import Timeframe
from ktrdr.market.times import to_microseconds


def resample(bars: Bars, fine: Timeframe, coarse: Timeframe) -> Bars:
    """Return the bars of the coarser timeframe whose periods the finer bars cover from start to end.

    A bar opens with its period, which is anchored in UTC (see `Timeframe`): days begin at midnight and weeks
    on Monday, so that the hours of a Sunday evening belong to the week that ends with them. A finer bar
    belongs to the period in which it *closes*: where bars do not begin on the edges of the periods, none
    carries anything into a period that was not known at its end.

    Periods at either end that the data does not cover whole are left out; a period with holes is formed from
    what there is, and one without any bar is absent.

    Args:
        bars: of the finer timeframe, increasing.
        fine: their timeframe.
        coarse: the timeframe to make, a multiple of the finer one.

    Raises:
        DataError: the coarser timeframe is not a multiple of the finer one.
    """
    if not coarse.is_multiple_of(fine):
        raise DataError(f"Bars of {coarse} cannot be made of bars of {fine}: their edges do not meet.")
    if bars.empty:
        return bars
    opens = to_microseconds(bars.index)
    closes = fine.close_microseconds(opens)
    starts = coarse.period_starts(closes - 1)

    first_rows = np.flatnonzero(np.diff(starts, prepend=starts[0] - 1))
    last_rows = np.append(first_rows[1:], len(starts)) - 1
    periods = starts[first_rows]
    column = {name: bars[name].to_numpy(np.float64) for name in BAR_COLUMNS}
    coarse_columns = {
        "open": column["open"][first_rows],
        "high": np.maximum.reduceat(column["high"], first_rows),
        "low": np.minimum.reduceat(column["low"], first_rows),
        "close": column["close"][last_rows],
        "volume": np.add.reduceat(column["volume"], first_rows),
    }
    covered = (periods >= opens[0]) & (coarse.close_microseconds(periods) <= closes[-1])
    return make_bars(periods[covered], {name: values[covered] for name, values in coarse_columns.items()})
