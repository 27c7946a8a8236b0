"""How much a mean over the test rows would vary: rows close in time are not independent.

Labels that look ahead over the same bars agree with each other, so that a binomial standard error would claim
far too much. Whole blocks of rows are drawn instead.

Source: Politis and Romano, "A circular block-resampling procedure for stationary data" (1992).
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ktrdr.models.metadata import ModelMetadata
from ktrdr.models.report.rows import Floats, Rows

RESAMPLES = 2_000
_FEWEST_BLOCKS = 8
_HORIZON_KEYS = ("max_holding_period", "horizon")


@dataclass(frozen=True, slots=True)
class BlockBootstrap:
    """Draws of blocks, the same for all that is compared, so that what they share cancels out."""

    block_rows: int
    starts: npt.NDArray[np.int64]
    """First row of each drawn block: (resample, block)."""

    @classmethod
    def draw(cls, rows: int, block_rows: int, seed: int) -> "BlockBootstrap":
        """Draw `RESAMPLES` times as many blocks as cover the rows; fewer times beyond 4 M blocks in all."""
        blocks = -(-rows // block_rows)
        resamples = max(200, min(RESAMPLES, 4_000_000 // blocks))
        starts = np.random.default_rng(seed).integers(rows, size=(resamples, blocks))
        return cls(block_rows, starts)

    def means(self, values: Floats) -> Floats:
        """Return the mean of the values in each resample."""
        sums = np.concatenate([[0.0], np.cumsum(np.concatenate([values, values[: self.block_rows]]))])
        blocks = sums[self.starts + self.block_rows] - sums[self.starts]
        means: Floats = blocks.mean(axis=1) / self.block_rows
        return means


def block_rows(rows: Rows, metadata: ModelMetadata) -> int:
    """Return a length that labels do not reach over, as far as the test part has room for a few blocks."""
    label = rows.label[rows.test]
    # Rows of one time stand together.
    at_once = len(metadata.training_symbols)
    horizons = [metadata.label_parameters.get(key) for key in _HORIZON_KEYS]
    horizon = at_once * max((value for value in horizons if isinstance(value, int)), default=0)
    if not horizon:
        # The label looks ahead without bound; twice its mean run is about its memory.
        by_symbol = label[np.argsort(rows.symbols[rows.test], kind="stable")]
        horizon = at_once * (2 * len(label) // (1 + int(np.count_nonzero(np.diff(by_symbol)))))
    wanted = max(horizon, math.ceil(math.cbrt(len(label))))
    return max(1, min(wanted, len(label) // _FEWEST_BLOCKS))
