"""What a label source is."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import pandas as pd

from ktrdr.market.bars import Bars
from ktrdr.parameters import Parameters
from ktrdr.registry import Registry


@dataclass(frozen=True, slots=True)
class Labels:
    """Labels of some of the bars, by bar time."""

    times: pd.DatetimeIndex
    """Open times of the labelled bars, UTC, strictly increasing."""
    values: npt.NDArray[np.int64] | npt.NDArray[np.float32]
    """Class numbers, or returns for regression; one per time."""
    known_at: pd.DatetimeIndex
    """Open time of the bar at whose close each label is known: the split must not let it cross."""


class LabelSource(Parameters, ABC):
    """Looks into the future of each bar, on purpose, to say what should have been done there."""

    classes: ClassVar[tuple[str, ...]] = ()
    """Names of the classes by number; empty for regression."""

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


LABELS: Registry[LabelSource] = Registry("label source")
