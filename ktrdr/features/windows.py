"""The network's inputs: single rows of features, or windows of consecutive ones."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from ktrdr.features.compute import FeatureMatrix
from ktrdr.market.continuity import holes_before
from ktrdr.market.timeframe import Timeframe
from ktrdr.market.times import to_microseconds

Positions = npt.NDArray[np.intp]
Float32Array = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Windows:
    """Inputs of the network, each the rows of a table up to one of its rows; nothing is copied."""

    table: Float32Array
    """(row, feature); the rows of a window are consecutive here."""
    ends: Positions
    """(input,): the row at which each ends."""
    length: int
    """Rows of each; 1: the input is the row itself."""

    def __len__(self) -> int:
        return len(self.ends)

    def part(self, which: slice | Positions) -> "Windows":
        """Return some of the inputs."""
        return Windows(self.table, self.ends[which], self.length)

    def values(self) -> Float32Array:
        """Return (input, feature) for a length of 1, else (input, row, feature), the oldest row first."""
        if self.length == 1:
            rows: Float32Array = self.table[self.ends]
            return rows
        windows: Float32Array = self.table[self.ends[:, None] + offsets(self.length)]
        return windows


def offsets(length: int) -> npt.NDArray[np.int64]:
    """Return where the rows of a window are, from the row at which it ends: -length + 1 to 0."""
    return np.arange(1 - length, 1, dtype=np.int64)


def complete_windows(
    matrix: FeatureMatrix, opens: pd.DatetimeIndex, timeframe: Timeframe, length: int
) -> Positions:
    """Return the rows of the matrix at which a window can end.

    It goes neither over a hole in the data nor over a bar that has been left out for want of a feature, so
    the first ``length - 1`` rows after each have none.

    Args:
        matrix: features of one symbol, incomplete rows left out.
        opens: open times of all bars of the base timeframe.
        timeframe: of those bars.
        length: rows of a window.
    """
    rows = np.arange(len(matrix.times), dtype=np.intp)
    if length == 1 or not len(rows):
        return rows
    positions = opens.get_indexer(matrix.times)
    begins = holes_before(to_microseconds(opens), timeframe)[positions]
    begins[1:] |= np.diff(positions) != 1
    begins[0] = True
    run_begin = np.maximum.accumulate(np.where(begins, rows, 0))
    return rows[rows - run_begin >= length - 1]
