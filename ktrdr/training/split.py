"""The chronological split into train, validation and test, with no label reaching over a border."""

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from ktrdr.errors import DataError

PartName = Literal["train", "validation", "test"]
PARTS: tuple[PartName, ...] = ("train", "validation", "test")

MINIMUM_ROWS = 10
"""Of each part; with fewer, neither a loss nor a metric says anything."""

RowNumbers = npt.NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class Split:
    """Row numbers of each part, ascending; every row of a part is later than every row of the one before."""

    train: RowNumbers
    validation: RowNumbers
    test: RowNumbers

    def rows(self, part: PartName) -> RowNumbers:
        """Return the row numbers of one part."""
        return {"train": self.train, "validation": self.validation, "test": self.test}[part]

    @property
    def used(self) -> int:
        """Rows in any part; the others were purged."""
        return len(self.train) + len(self.validation) + len(self.test)


def split_rows(times: pd.DatetimeIndex, known_at: pd.DatetimeIndex, train: float, validation: float) -> Split:
    """Cut the rows by shares, in order of time, and drop those whose label reaches into the next part.

    A row of the training part is dropped when its label was not yet known before the first validation bar,
    and likewise for validation and test: what a part is judged on must lie after all that was learnt from.

    Bars of one time (of several symbols) are never torn apart: they go to the later part.

    Args:
        times: open times of the bars, increasing.
        known_at: open time of the bar at whose close each row's label is known.
        train: share of the rows in the training part.
        validation: share in the validation part; the rest is the test part.

    Raises:
        DataError: a part has fewer than `MINIMUM_ROWS` rows.
    """
    rows = len(times)
    first_validation = _first_at(times, round(rows * train))
    first_test = _first_at(times, round(rows * (train + validation)))
    numbers = np.arange(rows, dtype=np.intp)
    borders = (0, first_validation, first_test, rows)
    parts = []
    for begin, end in pairwise(borders):
        inside = numbers[begin:end]
        if end < rows:
            inside = inside[known_at[begin:end] < times[end]]
        parts.append(inside)
    split = Split(*parts)
    _require_rows(split, rows)
    return split


def _first_at(times: pd.DatetimeIndex, row: int) -> int:
    """Return the first row with the time of this one."""
    return int(times.searchsorted(times[row])) if row < len(times) else row


def _require_rows(split: Split, rows: int) -> None:
    counts = {part: len(split.rows(part)) for part in PARTS}
    if min(counts.values()) >= MINIMUM_ROWS:
        return
    found = ", ".join(f"{count} {part}" for part, count in counts.items())
    raise DataError(
        f"{rows} labelled rows are too few: they leave {found} rows, and each part needs {MINIMUM_ROWS}"
        f" ({rows - split.used} rows were dropped because their label reaches into the next part).",
        fix="Give more bars, shorten the label's horizon, or change training.data_split.",
    )
