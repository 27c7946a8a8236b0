"""Bars at which enough has happened: the symmetric CUSUM filter."""

from collections.abc import Callable

import numpy as np

from ktrdr.labels.base import FloatArray, IntArray

# About 10 ms of work.
_BARS_BETWEEN_CHECKS = 1 << 15


def cusum_events(returns: FloatArray, thresholds: FloatArray, check: Callable[[], None]) -> IntArray:
    """Return the bars at which the returns have added up to more than a threshold, in either direction.

    Of each return r and threshold h, r - h is added to a sum of rises that is never below 0, and r + h to one
    of falls that is never above. A sum that exceeds its threshold makes the bar an event and starts anew.

    Args:
        returns: of each bar over the bar before; nothing is added where it is missing.
        thresholds: of each bar, 0 or above; likewise.
        check: called at least every 50 ms of work.

    Source: M. López de Prado, Advances in Financial Machine Learning (2018), section 2.5.2.1, with the
    threshold as the expected return, so that a drift of less than h a bar makes no events.
    """
    usable = np.flatnonzero(np.isfinite(returns) & np.isfinite(thresholds))
    events = []
    up = down = 0.0
    for start in range(0, len(usable), _BARS_BETWEEN_CHECKS):
        check()
        block = usable[start : start + _BARS_BETWEEN_CHECKS]
        found = []
        for at, (change, threshold) in enumerate(
            zip(returns[block].tolist(), thresholds[block].tolist(), strict=True)
        ):
            up += change - threshold
            down += change + threshold
            if up < 0.0:
                up = 0.0
            if down > 0.0:
                down = 0.0
            if up > threshold:
                up = 0.0
                found.append(at)
            elif down < -threshold:
                down = 0.0
                found.append(at)
        events.append(block[np.array(found, dtype=np.int64)])
    return np.concatenate(events) if events else usable
