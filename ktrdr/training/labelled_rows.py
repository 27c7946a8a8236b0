"""Features and labels of the same bars, of one symbol or of several."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from ktrdr.errors import DataError
from ktrdr.features.compute import FeatureMatrix
from ktrdr.features.windows import Positions, Windows
from ktrdr.labels import Labels
from ktrdr.market.bars import Bars
from ktrdr.market.times import to_index, to_microseconds


@dataclass(frozen=True, slots=True)
class LabelledRows:
    """The bars that have both features and a label, in order of time; at one time, in that of the symbols."""

    symbols: tuple[str, ...]
    symbol_numbers: npt.NDArray[np.int64]
    """(row,): which symbol's bar it is."""
    times: pd.DatetimeIndex
    """Open times, UTC."""
    known_at: pd.DatetimeIndex
    """Open time of the bar at whose close each label is known."""
    inputs: Windows
    """One per row; the table has every symbol's features, one symbol after the other."""
    targets: npt.NDArray[np.int64] | npt.NDArray[np.float32]
    """(row,): class numbers, or values."""
    weights: npt.NDArray[np.float64] | None
    """(row,): how often each is drawn in training, relative to others; None: all alike."""
    closes: npt.NDArray[np.float64]
    last_returns: npt.NDArray[np.float64]
    """Of each bar over the bar before it."""

    def __len__(self) -> int:
        return len(self.times)


def match(
    symbol: str, matrix: FeatureMatrix, ends: Positions, window: int, labels: Labels, bars: Bars
) -> LabelledRows:
    """Match one symbol's features and labels by the time of their bar, never by position.

    Args:
        symbol: whose they are.
        matrix: features, warm-up rows already left out.
        ends: rows of it at which a window can end.
        window: rows of an input.
        labels: of some bars.
        bars: of the base timeframe; has every time of the other two.

    Raises:
        DataError: no bar has both.
    """
    positions = matrix.times[ends].get_indexer(labels.times)
    labelled = positions >= 0
    if not labelled.any():
        inputs = "features" if window == 1 else f"the features of {window} consecutive bars"
        there = f"{inputs} ({len(ends)} bars) and a label ({len(labels.times)} bars)"
        raise DataError(
            f"No bar of {symbol} has both {there}.",
            fix="Use a longer range of dates, shorter indicator periods, or a shorter label horizon.",
        )
    times = labels.times[labelled]
    in_bars = bars.index.get_indexer(times)
    closes = bars["close"].to_numpy(np.float64)
    return LabelledRows(
        symbols=(symbol,),
        symbol_numbers=np.zeros(len(times), np.int64),
        times=times,
        known_at=labels.known_at[labelled],
        inputs=Windows(matrix.values, ends[positions[labelled]], window),
        targets=labels.values[labelled],
        weights=None if labels.weights is None else labels.weights[labelled],
        closes=closes[in_bars],
        last_returns=_last_returns(closes)[in_bars],
    )


def together(parts: Sequence[LabelledRows]) -> LabelledRows:
    """Return the rows of several symbols as one, each with its own features and label."""
    if len(parts) == 1:
        return parts[0]
    opens = np.concatenate([to_microseconds(part.times) for part in parts])
    order = np.argsort(opens, kind="stable")
    known_at = np.concatenate([to_microseconds(part.known_at) for part in parts])
    firsts = np.cumsum([0, *(len(part.inputs.table) for part in parts[:-1])])
    ends = [part.inputs.ends + first for part, first in zip(parts, firsts, strict=True)]
    weights = [part.weights for part in parts if part.weights is not None]
    return LabelledRows(
        symbols=tuple(symbol for part in parts for symbol in part.symbols),
        symbol_numbers=np.repeat(np.arange(len(parts)), [len(part) for part in parts])[order],
        times=to_index(opens[order]),
        known_at=to_index(known_at[order]),
        inputs=Windows(
            np.concatenate([part.inputs.table for part in parts]),
            np.concatenate(ends)[order],
            parts[0].inputs.length,
        ),
        targets=np.concatenate([part.targets for part in parts])[order],
        weights=np.concatenate(weights)[order] if weights else None,
        closes=np.concatenate([part.closes for part in parts])[order],
        last_returns=np.concatenate([part.last_returns for part in parts])[order],
    )


def _last_returns(closes: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return each close over the one before, less one; 0 for the first bar."""
    returns = np.zeros(len(closes))
    np.divide(closes[1:], closes[:-1], out=returns[1:])
    returns[1:] -= 1
    return returns
