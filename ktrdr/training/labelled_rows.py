"""Features and labels of the same bars."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from ktrdr.errors import DataError
from ktrdr.features.compute import FeatureMatrix
from ktrdr.labels import Labels
from ktrdr.market.bars import Bars


@dataclass(frozen=True, slots=True)
class LabelledRows:
    """The bars that have both features and a label, in order of time."""

    times: pd.DatetimeIndex
    """Open times, UTC."""
    known_at: pd.DatetimeIndex
    """Open time of the bar at whose close each label is known."""
    inputs: npt.NDArray[np.float32]
    """(row, feature)."""
    targets: npt.NDArray[np.int64] | npt.NDArray[np.float32]
    """(row,): class numbers, or values."""
    closes: npt.NDArray[np.float64]
    last_returns: npt.NDArray[np.float64]
    """Of each bar over the bar before it."""

    def __len__(self) -> int:
        return len(self.times)


def match(matrix: FeatureMatrix, labels: Labels, bars: Bars) -> LabelledRows:
    """Match features and labels by the time of their bar, never by position.

    Args:
        matrix: features, warm-up rows already left out.
        labels: of some bars.
        bars: of the base timeframe; has every time of the other two.

    Raises:
        DataError: no bar has both.
    """
    positions = matrix.times.get_indexer(labels.times)
    labelled = positions >= 0
    if not labelled.any():
        raise DataError(
            f"No bar has both features ({len(matrix.times)} bars) and a label ({len(labels.times)} bars).",
            fix="Use a longer range of dates, shorter indicator periods, or a shorter label horizon.",
        )
    times = labels.times[labelled]
    in_bars = bars.index.get_indexer(times)
    closes = bars["close"].to_numpy(np.float64)
    return LabelledRows(
        times=times,
        known_at=labels.known_at[labelled],
        inputs=matrix.values[positions[labelled]],
        targets=labels.values[labelled],
        closes=closes[in_bars],
        last_returns=_last_returns(closes)[in_bars],
    )


def _last_returns(closes: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return each close over the one before, less one; 0 for the first bar."""
    returns = np.zeros(len(closes))
    np.divide(closes[1:], closes[:-1], out=returns[1:])
    returns[1:] -= 1
    return returns
