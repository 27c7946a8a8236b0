"""Labels of the market's direction: up, down, or neither."""

from collections.abc import Callable
from typing import Annotated, ClassVar, Self

import numpy as np
from pydantic import Field, model_validator

from ktrdr.labels.base import LABELS, Labels, LabelSource, labels_at, prices, require_bars
from ktrdr.labels.forward_return import returns_over
from ktrdr.market.bars import Bars

BULLISH, BEARISH, NEUTRAL = range(3)
Threshold = Annotated[float, Field(allow_inf_nan=False)]


@LABELS.register("context")
class Context(LabelSource):
    """BULLISH if the return of the next ``horizon`` bars is above one threshold, BEARISH if below the other.

    NEUTRAL at the thresholds and between them. The last ``horizon`` bars have no label.
    """

    classes: ClassVar[tuple[str, ...]] = ("BULLISH", "BEARISH", "NEUTRAL")

    horizon: Annotated[int, Field(ge=1)] = 5
    """Bars that the return is over."""
    bullish_threshold: Threshold = 0.005
    """A return above it is BULLISH."""
    bearish_threshold: Threshold = -0.005
    """A return below it is BEARISH; must be the lower one."""

    @model_validator(mode="after")
    def _bullish_is_above(self) -> Self:
        if self.bullish_threshold <= self.bearish_threshold:
            raise ValueError(
                f"bullish_threshold ({self.bullish_threshold:g}) must be above "
                f"bearish_threshold ({self.bearish_threshold:g})"
            )
        return self

    @property
    def horizon_bars(self) -> int:
        """Exactly the horizon."""
        return self.horizon

    def compute(self, bars: Bars, check: Callable[[], None]) -> Labels:
        """Classify (close[t + horizon] - close[t]) / close[t], known at bar t + horizon."""
        check()
        require_bars(bars, self.horizon + 1, "context")
        returns = returns_over(prices(bars, "close"), self.horizon)
        values = np.full(len(returns), NEUTRAL, dtype=np.int64)
        values[returns > self.bullish_threshold] = BULLISH
        values[returns < self.bearish_threshold] = BEARISH
        check()
        labelled = np.arange(len(returns))
        return labels_at(bars, labelled, values, labelled + self.horizon)
