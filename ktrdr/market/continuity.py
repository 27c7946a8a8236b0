"""Where a table of bars has holes over which a sequence must not go."""

import numpy as np
import numpy.typing as npt

from ktrdr.market.timeframe import Timeframe
from ktrdr.market.times import FIRST_MONDAY, MICROSECONDS_PER_DAY, Int64Array

_WEEK = 7 * MICROSECONDS_PER_DAY
_WORKING_WEEK = 5 * MICROSECONDS_PER_DAY
# Easter closes exchanges from Thursday's evening to Tuesday's morning: two working days and two nights.
_LONGEST_CLOSURE = 3 * MICROSECONDS_PER_DAY


def holes_before(opens: Int64Array, timeframe: Timeframe) -> npt.NDArray[np.bool_]:
    """Return whether there is a hole between each bar and the one before it; False for the first.

    A hole is more than three days without a bar, Saturdays and Sundays (UTC) not counted, or more than one
    bar where those are longer than that. So nights, weekends and holidays are none, whatever the market.
    It is known from the two bars alone: what is a hole does not change with later bars.

    Args:
        opens: open times, microseconds since 1970, increasing.
        timeframe: of the bars.
    """
    holes = np.zeros(len(opens), np.bool_)
    if len(opens) < 2:
        return holes
    closes = timeframe.close_microseconds(opens[:-1])
    length = int(timeframe.duration.total_seconds() * 1_000_000)
    holes[1:] = _working_time(opens[1:]) - _working_time(closes) > max(_LONGEST_CLOSURE, length)
    return holes


def _working_time(times: Int64Array) -> Int64Array:
    """Return the microseconds from Monday to Friday that had passed since 1970-01-05 at each time."""
    weeks, within = np.divmod(times - FIRST_MONDAY, _WEEK)
    passed: Int64Array = weeks * _WORKING_WEEK + np.minimum(within, _WORKING_WEEK)
    return passed
