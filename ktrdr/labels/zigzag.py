"""Labels by the legs of a zigzag: which way the price is going until it next turns."""

from collections.abc import Callable, Mapping
from typing import Annotated, ClassVar

import numpy as np
from pydantic import Field

from ktrdr.errors import DataError
from ktrdr.labels.base import (
    ACTIONS,
    BUY,
    HOLD,
    LABELS,
    SELL,
    Labels,
    LabelSource,
    labels_at,
    prices,
    require_bars,
)
from ktrdr.labels.legs import trace
from ktrdr.market.bars import Bars


@LABELS.register("zigzag")
class ZigZag(LabelSource):
    """BUY within a rise, SELL within a fall, HOLD at the turning points and at the first bar.

    A leg ends at its extreme close once a close is ``zigzag_threshold`` (a share) back from it; the first of
    equal closes is the extreme. The first leg begins at the first close and takes its direction when a close
    is the threshold away from that.

    A bar's label is known as soon as no later bar can change it: at the next bar that carries the leg on
    beyond it, or at the one that turns the leg. The bars from the last extreme on, whose leg may still turn
    there, have none.
    """

    classes: ClassVar[tuple[str, ...]] = ACTIONS
    ignored_names: ClassVar[Mapping[str, str]] = {
        "label_lookahead": "a leg lasts until the price turns, however long that takes"
    }

    zigzag_threshold: Annotated[float, Field(gt=0, lt=1)] = 0.02
    """How far a close must be back from the extreme to turn the leg, as a share of it."""

    @property
    def horizon_bars(self) -> int:
        """0: a leg may last for any number of bars."""
        return 0

    def compute(self, bars: Bars, check: Callable[[], None]) -> Labels:
        """Label every bar up to the last extreme that may still move."""
        check()
        require_bars(bars, 2, "zigzag")
        close = prices(bars, "close")
        legs = trace(close, np.full(len(close), self.zigzag_threshold), check)
        if not len(legs.ends):
            raise DataError(
                f"The close never moves by {self.zigzag_threshold:.2%} from the first of {len(bars)} bars, "
                "so zigzag labels none.",
                fix="Lower zigzag_threshold, or use a longer range of dates.",
            )
        check()
        starts = legs.starts
        lengths = legs.ends - starts
        values = np.repeat(np.where(legs.rises, BUY, SELL), lengths)
        values[starts[legs.turns]] = HOLD
        known_at = np.repeat(legs.ends, lengths)
        check()
        return labels_at(bars, np.arange(len(values)), values, known_at)
