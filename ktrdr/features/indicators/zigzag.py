"""Turning points of the price, each from the bar on at which it is known to be one."""

from collections.abc import Mapping
from typing import Annotated

import numpy as np
from pydantic import Field

from ktrdr.features.indicators.base import INDICATORS, FloatArray, Indicator, Source, column
from ktrdr.market.bars import Bars

# As Python's floats, a few times faster in a loop than numpy's, and few enough to stay small.
_BARS_AT_ONCE = 1 << 16


@INDICATORS.register("zigzag", "zigzagindicator")
class ZigZag(Indicator):
    """Price of the newest turning point that is known.

    A rise turns at its highest price once a price is ``threshold`` (a share) below that, a fall at its lowest
    once one is as much above. That is when the turning point becomes known, bars after it was there, and its
    price stays until the next is known. The first price counts as a turning point: the first leg begins
    there, and takes its direction when a price is the threshold away from it.
    """

    threshold: Annotated[float, Field(gt=0, lt=1)] = 0.05
    source: Source = "close"

    @property
    def warmup_bars(self) -> int:
        """The first price is the first turning point."""
        return 0

    def compute(self, bars: Bars) -> Mapping[str, FloatArray]:
        """Return the price of the newest turning point."""
        values = column(bars, self.source)
        known_at, prices = _turning_points(values, self.threshold)
        return {"": np.repeat(prices, np.diff([*known_at, len(values)]))}


def _turning_points(values: FloatArray, threshold: float) -> tuple[list[int], list[float]]:
    """Return the bars at which turning points become known, and their prices."""
    if not len(values):
        return [], []
    extreme = float(values[0])
    known_at, prices = [0], [extreme]
    rising = falling = False  # until there is a first leg
    fall_to, rise_to = sorted((extreme * (1 - threshold), extreme * (1 + threshold)))
    for start in range(1, len(values), _BARS_AT_ONCE):
        for at, value in enumerate(values[start : start + _BARS_AT_ONCE].tolist(), start):
            if value > extreme and (rising or value >= rise_to):
                turns, rising, falling = falling, True, False
            elif value < extreme and (falling or value <= fall_to):
                turns, rising, falling = rising, False, True
            else:
                continue
            if turns:
                known_at.append(at)
                prices.append(extreme)
            extreme = value
            # For prices below zero, the share of which points the other way.
            fall_to, rise_to = sorted((extreme * (1 - threshold), extreme * (1 + threshold)))
    return known_at, prices
