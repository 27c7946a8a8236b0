"""Fewer points than rows, so that a report of a million rows opens as quickly as one of six thousand."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ktrdr.models.report.rows import PARTS, Floats, Integers

MAX_LINE_POINTS = 8_000
MAX_RIBBON_CELLS = 8_000
MAX_SCATTER_POINTS = 4_000


@dataclass(frozen=True, slots=True)
class Groups:
    """Consecutive rows, cut into groups of about equal size, none of which crosses a border of the split."""

    starts: npt.NDArray[np.intp]
    """First row of each."""
    sizes: npt.NDArray[np.intp]

    def __len__(self) -> int:
        return len(self.starts)

    @property
    def ends(self) -> npt.NDArray[np.intp]:
        """Last row of each."""
        return self.starts + self.sizes - 1

    @property
    def largest(self) -> int:
        """Rows of the largest group."""
        return int(self.sizes.max())

    def shares(self, numbers: Integers, classes: int) -> Floats:
        """Return how large a share of each group each class has: (group, class)."""
        return np.column_stack(
            [self.means((numbers == number).astype(np.float64)) for number in range(classes)]
        )

    def means(self, values: Floats) -> Floats:
        """Return the mean of each group."""
        means: Floats = np.add.reduceat(values, self.starts) / self.sizes
        return means

    def quantiles(self, values: Floats, shares: tuple[float, ...]) -> Floats:
        """Return quantiles of each group: (share, group)."""
        parts = np.split(values, self.starts[1:])
        return np.array([np.quantile(part, shares) for part in parts]).T


def group_rows(parts: Integers, at_most: int) -> Groups:
    """Cut the rows into about ``at_most`` groups, each in one part of the split."""
    starts: list[npt.NDArray[np.intp]] = []
    rows_each = -(-len(parts) // at_most)
    for part in range(len(PARTS)):
        first, end = np.searchsorted(parts, [part, part + 1])
        groups = -(-(end - first) // rows_each)
        starts.append(first + np.arange(groups, dtype=np.intp) * (end - first) // max(groups, 1))
    joined = np.concatenate(starts)
    return Groups(joined, np.diff(np.append(joined, len(parts))))


def rows_per_group(rows: int) -> int:
    """Return of how many rows a line shows two, if it cannot show all."""
    return -(-rows // (MAX_LINE_POINTS // 2))


def line_rows(values: Floats) -> npt.NDArray[np.intp]:
    """Return the rows to draw a line through: all, or the lowest and highest of each group."""
    rows = len(values)
    if rows <= MAX_LINE_POINTS:
        return np.arange(rows)
    size = rows_per_group(rows)
    groups = -(-rows // size)
    padded = np.pad(values, (0, groups * size - rows), mode="edge").reshape(groups, size)
    firsts = np.arange(groups) * size
    chosen = np.concatenate([[0, rows - 1], firsts + padded.argmin(axis=1), firsts + padded.argmax(axis=1)])
    return np.unique(np.minimum(chosen, rows - 1))
