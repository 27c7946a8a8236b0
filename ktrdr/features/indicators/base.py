"""What an indicator is."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar, Literal

import numpy as np
import numpy.typing as npt

from ktrdr.market.bars import Bars
from ktrdr.parameters import Parameters
from ktrdr.registry import Registry

FloatArray = npt.NDArray[np.float64]
Source = Literal["open", "high", "low", "close", "volume"]


class Indicator(Parameters, ABC):
    """A causal function of bars: the value at a bar depends on that bar and earlier ones only."""

    outputs: ClassVar[tuple[str, ...]] = ()
    """Names of several outputs, the primary one first; empty for an indicator with one."""

    @property
    @abstractmethod
    def warmup_bars(self) -> int:
        """Bars at the start without a value (NaN), the same number for every output."""

    @abstractmethod
    def compute(self, bars: Bars) -> Mapping[str, FloatArray]:
        """Return one array of ``len(bars)`` per output, NaN in the warm-up.

        The key is the output's name, or the empty string for an indicator with one output.
        A value that is not defined (a change relative to zero) is NaN too.

        Args:
            bars: finite numbers only; a NaN would spread to every later value of a recursive average.
        """


INDICATORS: Registry[Indicator] = Registry("indicator type", Indicator, "ktrdr.indicators")


def column(bars: Bars, name: Source) -> FloatArray:
    """Return a column as TA-Lib needs it: contiguous float64; without a copy where it is so already."""
    return np.ascontiguousarray(bars[name].to_numpy(dtype=np.float64))
