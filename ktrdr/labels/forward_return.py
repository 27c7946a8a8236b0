"""Labels for regression: the return that comes."""

from collections.abc import Callable
from typing import Annotated

import numpy as np
from pydantic import Field

from ktrdr.errors import DataError
from ktrdr.labels.base import (
    LABELS,
    FloatArray,
    Labels,
    LabelSource,
    labels_at,
    prices,
    require_bars,
)
from ktrdr.market.bars import Bars


@LABELS.register("forward_return")
class ForwardReturn(LabelSource):
    """Relative change of the close over the next ``horizon`` bars; the last ``horizon`` bars have none."""

    horizon: Annotated[int, Field(ge=1)] = 20
    """Bars that the return is over."""

    @property
    def horizon_bars(self) -> int:
        """Exactly the horizon."""
        return self.horizon

    def compute(self, bars: Bars, check: Callable[[], None]) -> Labels:
        """Return (close[t + horizon] - close[t]) / close[t], known at bar t + horizon."""
        check()
        require_bars(bars, self.horizon + 1, "forward_return")
        returns = returns_over(prices(bars, "close"), self.horizon)
        beyond = np.abs(returns) > np.finfo(np.float32).max
        if beyond.any():
            first = int(beyond.argmax())
            raise DataError(
                f"The return over the {self.horizon} bars from {bars.index[first].isoformat()} on is "
                f"{returns[first]:.3g}, too large to learn from.",
                fix="Correct the data file.",
            )
        check()
        labelled = np.arange(len(returns))
        return labels_at(bars, labelled, returns.astype(np.float32), labelled + self.horizon)


def returns_over(close: FloatArray, horizon: int) -> FloatArray:
    """Return the relative change of each close over the next bars; the last ``horizon`` bars have none."""
    now, later = close[:-horizon], close[horizon:]
    with np.errstate(over="ignore"):
        return (later - now) / now
