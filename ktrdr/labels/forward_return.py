"""Labels for regression: the return that comes."""

from collections.abc import Callable
from typing import Annotated

import numpy as np
from pydantic import Field

from ktrdr.labels.base import LABELS, Labels, LabelSource, labels_at, prices, require_bars
from ktrdr.market.bars import Bars


@LABELS.register("forward_return")
class ForwardReturn(LabelSource):
    """Relative change of the close over the next ``horizon`` bars; the last ``horizon`` bars have none."""

    horizon: Annotated[int, Field(ge=1)] = 20

    @property
    def horizon_bars(self) -> int:
        """Exactly the horizon."""
        return self.horizon

    def compute(self, bars: Bars, check: Callable[[], None]) -> Labels:
        """Return (close[t + horizon] - close[t]) / close[t], known at bar t + horizon."""
        check()
        require_bars(bars, self.horizon + 1, "forward_return")
        close = prices(bars, "close")
        now, later = close[: -self.horizon], close[self.horizon :]
        labelled = np.arange(len(now))
        return labels_at(bars, labelled, ((later - now) / now).astype(np.float32), labelled + self.horizon)
