"""Ichimoku Kinko Hyo, as it stands on a chart at its newest bar."""

from collections.abc import Mapping
from typing import Annotated, ClassVar

from pydantic import Field

from ktrdr.features.indicators.base import INDICATORS, FloatArray, Indicator, column
from ktrdr.features.indicators.windows import middle, shifted, without_warmup
from ktrdr.market.bars import Bars


@INDICATORS.register("ichimoku", "ichimokuindicator")
class Ichimoku(Indicator):
    """Ichimoku: middles of the ranges of three periods, and the cloud that was drawn ahead of the price.

    ``tenkan`` and ``kijun`` are the middles between highest high and lowest low of their periods.
    ``senkou_a``, the middle of those two, and ``senkou_b``, the middle of the longest range, are drawn
    ``displacement`` bars ahead: their values here are the cloud at the bar itself, known since so many bars.
    ``chikou`` is the close: it is drawn ``displacement`` bars back, where it was not known then.

    Source: G. Hosoda (Ichimoku Sanjin), Ichimoku Kinko Hyo (1969).
    """

    outputs: ClassVar[tuple[str, ...]] = ("tenkan", "kijun", "senkou_a", "senkou_b", "chikou")

    tenkan_period: Annotated[int, Field(ge=1, le=50)] = 9
    kijun_period: Annotated[int, Field(ge=1, le=100)] = 26
    senkou_b_period: Annotated[int, Field(ge=1, le=200)] = 52
    displacement: Annotated[int, Field(ge=0, le=100)] = 26

    @property
    def warmup_bars(self) -> int:
        """The longest range, ``displacement`` bars ago."""
        return max(self.tenkan_period, self.kijun_period, self.senkou_b_period) - 1 + self.displacement

    def compute(self, bars: Bars) -> Mapping[str, FloatArray]:
        """Return the five lines."""
        high, low = column(bars, "high"), column(bars, "low")
        tenkan, kijun = middle(high, low, self.tenkan_period), middle(high, low, self.kijun_period)
        outputs = {
            "tenkan": tenkan,
            "kijun": kijun,
            "senkou_a": shifted((tenkan + kijun) / 2, self.displacement),
            "senkou_b": shifted(middle(high, low, self.senkou_b_period), self.displacement),
            "chikou": column(bars, "close"),
        }
        return without_warmup(outputs, self.warmup_bars)
