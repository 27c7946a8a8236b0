"""What a label source is."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from ktrdr.errors import DataError
from ktrdr.market.bars import Bars
from ktrdr.parameters import Parameters
from ktrdr.registry import Registry

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Labels:
    """Labels of some of the bars, by bar time."""

    times: pd.DatetimeIndex
    """Open times of the labelled bars, UTC, strictly increasing."""
    values: npt.NDArray[np.int64] | npt.NDArray[np.float32]
    """Class numbers, or returns for regression; one per time."""
    known_at: pd.DatetimeIndex
    """Open time of the bar at whose close each label is known: the split must not let it cross."""
    weights: FloatArray | None = None
    """How much each counts when training rows are drawn: above 0, 1 on average. None: all alike."""


ACTIONS = ("BUY", "HOLD", "SELL")
"""The classes of a label that says what to do; BUY is class 0."""
BUY, HOLD, SELL = range(3)


class LabelSource(Parameters, ABC):
    """Looks into the future of each bar, on purpose, to say what should have been done there.

    What a label depends on must be known when it says so, lest one part of the data tells of the next: see
    `ktrdr.labels.causality.find_label_leak`.
    """

    classes: ClassVar[tuple[str, ...]] = ()
    """Names of the classes by number; empty for regression."""

    @property
    def warmup_bars(self) -> int:
        """Bars at the start that never have a label, because it takes others before it."""
        return 0

    @property
    @abstractmethod
    def horizon_bars(self) -> int:
        """The furthest that a label looks ahead, where it is bounded; 0 where it is not."""

    @abstractmethod
    def compute(self, bars: Bars, check: Callable[[], None]) -> Labels:
        """Label the bars that can be labelled; others are left out.

        Args:
            bars: of the base timeframe.
            check: called at least every 50 ms of work; raises if the training is cancelled.

        Raises:
            DataError: there are too few bars, or prices that cannot be labelled.
        """


def as_table(labels: Labels) -> pd.DataFrame:
    """Return value, known_at and weight (1 where all count alike) by time."""
    weights = labels.weights if labels.weights is not None else np.ones(len(labels.times))
    columns = {"value": labels.values, "known_at": labels.known_at, "weight": weights}
    return pd.DataFrame(columns, index=labels.times)


LABELS: Registry[LabelSource] = Registry("label source", LabelSource, "ktrdr.labels")


def labels_at(
    bars: Bars,
    positions: npt.NDArray[np.int64],
    values: npt.NDArray[np.int64] | npt.NDArray[np.float32],
    known_at: npt.NDArray[np.int64],
    weights: FloatArray | None = None,
) -> Labels:
    """Return labels whose bars, and the bars at which they are known, are given by position."""
    times = pd.DatetimeIndex(bars.index)
    return Labels(times[positions], values, times[known_at], weights)


def prices(bars: Bars, name: Literal["open", "high", "low", "close"]) -> FloatArray:
    """Return a column of prices that may be divided by.

    Raises:
        DataError: one is not a positive number; names the first.
    """
    values = bars[name].to_numpy(dtype=np.float64)
    usable = (values > 0) & np.isfinite(values)
    if not usable.all():
        first = int(usable.argmin())
        raise DataError(
            f"The bar of {bars.index[first].isoformat()} has the {name} price {values[first]}: "
            "labels need positive prices.",
            fix="Correct the data file.",
        )
    return values


def require_bars(bars: Bars, needed: int, source: str) -> None:
    """Check that there are enough bars for at least one label.

    Raises:
        DataError: names how many are needed.
    """
    if len(bars) < needed:
        raise DataError(
            f"{source} labels need at least {needed} bars, but there are {len(bars)}.",
            fix="Use a longer range of dates, or shorter windows.",
        )
