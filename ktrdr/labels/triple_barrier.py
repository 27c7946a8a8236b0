"""Labels by the triple-barrier method: profit, loss or time, whichever comes first."""

from collections.abc import Callable, Mapping
from typing import Annotated, ClassVar, Literal

import numpy as np
import pandas as pd
from pydantic import Field

from ktrdr.errors import DataError
from ktrdr.labels.base import (
    ACTIONS,
    BUY,
    HOLD,
    LABELS,
    SELL,
    FloatArray,
    IntArray,
    Labels,
    LabelSource,
    labels_at,
    prices,
    require_bars,
)
from ktrdr.labels.cusum import cusum_events
from ktrdr.labels.uniqueness import uniqueness
from ktrdr.market.bars import Bars

Multiplier = Annotated[float, Field(gt=0, allow_inf_nan=False)]

# Bars labelled together: few enough to stay in the cache while their windows are walked.
_BLOCK_BARS = 1 << 14


@LABELS.register("triple_barrier")
class TripleBarrier(LabelSource):
    """BUY if the price first reaches the upper barrier, SELL if the lower one, else by where it ends.

    The barriers of bar t are its close times (1 + pt_multiplier · v) and (1 - sl_multiplier · v), where v is
    the volatility known at t. The next ``max_holding_period`` bars are held against them: a high at or above
    the upper one is a BUY, a low at or below the lower one a SELL; where one bar does both, its close decides
    (BUY if not below that of t). If none does, the return r over all of them decides: HOLD if
    |r| < v / 2 · √max_holding_period, else by its sign.

    v is an exponentially weighted mean over ``vol_span`` of (high - low) / close (``atr``), or the weighted
    deviation of the logarithmic returns (``close``).

    Not labelled: the first bars, until ``vol_span`` values are in v; bars at which v is 0; and the last
    ``max_holding_period`` bars, all of them, since to keep only those that met a barrier early would bias
    the classes.

    With a ``cusum_threshold``, only bars are labelled at which the logarithmic returns since the last such
    bar have added up to it (`cusum_events`). At 0 or below it is ``cusum_multiplier`` times the mean
    deviation of returns (over ``vol_span``) so far.

    With ``compute_weights``, a label counts for less the more others rest on the same bars (`uniqueness`).

    Source: M. López de Prado, Advances in Financial Machine Learning (2018), sections 3.3-3.4.
    """

    classes: ClassVar[tuple[str, ...]] = ACTIONS
    former_names: ClassVar[Mapping[str, str]] = {
        "profit_target_atr": "pt_multiplier",
        "stop_loss_atr": "sl_multiplier",
        "max_holding_bars": "max_holding_period",
        "atr_period": "vol_span",
    }

    pt_multiplier: Multiplier = 2.0
    """Volatilities from the close up to the upper barrier, where profit is taken."""
    sl_multiplier: Multiplier = 1.5
    """Volatilities down to the lower one, where the loss is stopped."""
    max_holding_period: Annotated[int, Field(ge=1)] = 50
    """Bars until time is up."""
    vol_span: Annotated[int, Field(ge=2)] = 50
    """Bars over which the volatility is weighted: the newest by 2 / (span + 1)."""
    vol_method: Literal["atr", "close"] = "atr"
    """Mean range, or deviation of returns."""
    compute_weights: bool = False
    """Whether labels that share bars with others count for less."""
    cusum_threshold: Annotated[float, Field(allow_inf_nan=False)] | None = None
    """A sum of logarithmic returns; 0 or below: by the volatility. None: every bar is labelled."""
    cusum_multiplier: Multiplier = 0.5
    """Deviations of returns, where the threshold follows from the volatility."""

    def without_effect(self) -> Mapping[str, str]:
        """The multiplier is for a threshold by the volatility."""
        if "cusum_multiplier" not in self.model_fields_set or (
            self.cusum_threshold is not None and self.cusum_threshold <= 0
        ):
            return {}
        return {"cusum_multiplier": "it takes a cusum_threshold of 0 or below"}

    @property
    def warmup_bars(self) -> int:
        """Those before the volatility is known: it takes ``vol_span`` ranges or returns."""
        return self.vol_span - (1 if self.vol_method == "atr" else 0)

    @property
    def horizon_bars(self) -> int:
        """The holding period; many labels are known sooner."""
        return self.max_holding_period

    def compute(self, bars: Bars, check: Callable[[], None]) -> Labels:
        """Label the bars; each label is known at the bar that met a barrier, or at the end of the period."""
        check()
        first = self.warmup_bars
        require_bars(bars, first + self.max_holding_period + 1, "triple_barrier")
        high, low, close = prices(bars, "high"), prices(bars, "low"), prices(bars, "close")
        check()
        volatility = self._volatility(high, low, close)
        check()

        candidates = np.arange(first, len(bars) - self.max_holding_period)
        labelled = candidates[volatility[candidates] > 0]
        if not len(labelled):
            raise DataError(
                f"The volatility ({self.vol_method}) is 0 at every bar, so that there are no barriers.",
                fix="Check the prices, or use the other vol_method.",
            )
        if self.cusum_threshold is not None:
            labelled = self._at_events(labelled, close, self.cusum_threshold, check)
        values = np.empty(len(labelled), dtype=np.int64)
        known_at = np.empty(len(labelled), dtype=np.int64)
        for start in range(0, len(labelled), _BLOCK_BARS):
            block = slice(start, start + _BLOCK_BARS)
            values[block], known_at[block] = self._first_touches(
                labelled[block], high, low, close, volatility[labelled[block]], check
            )
        weights = uniqueness(labelled, known_at, check) if self.compute_weights else None
        check()
        return labels_at(bars, labelled, values, known_at, weights)

    def _volatility(self, high: FloatArray, low: FloatArray, close: FloatArray) -> FloatArray:
        if self.vol_method == "atr":
            ranges = pd.Series((high - low) / close)
            return ranges.ewm(span=self.vol_span, min_periods=self.vol_span).mean().to_numpy()
        return self._deviation(_log_returns(close))

    def _deviation(self, returns: FloatArray) -> FloatArray:
        return pd.Series(returns).ewm(span=self.vol_span, min_periods=self.vol_span).std().to_numpy()

    def _at_events(
        self, bars: IntArray, close: FloatArray, threshold: float, check: Callable[[], None]
    ) -> IntArray:
        """Return those of the bars that are CUSUM events."""
        returns = _log_returns(close)
        if threshold > 0:
            thresholds = np.full(len(close), threshold)
        else:
            check()
            deviation = self._deviation(returns)
            check()
            known = np.isfinite(deviation)
            # Of those so far, so that no bar is chosen by what comes after it.
            mean = np.cumsum(np.where(known, deviation, 0.0)) / np.maximum(np.cumsum(known), 1)
            thresholds = np.where(known, self.cusum_multiplier * mean, np.nan)
        check()
        is_event = np.zeros(len(close), dtype=np.bool_)
        is_event[cusum_events(returns, thresholds, check)] = True
        events = bars[is_event[bars]]
        if not len(events):
            raise DataError(
                f"No bar is labelled: the returns never add up to the CUSUM threshold in {len(close)} bars.",
                fix="Lower cusum_threshold or cusum_multiplier, or use a longer range of dates.",
            )
        return events

    def _first_touches(
        self,
        bars: IntArray,
        high: FloatArray,
        low: FloatArray,
        close: FloatArray,
        volatility: FloatArray,
        check: Callable[[], None],
    ) -> tuple[IntArray, IntArray]:
        """Return the label of each of these bars, and the bar at which it is known."""
        entry = close[bars]
        end = bars + self.max_holding_period
        gain = (close[end] - entry) / entry
        values = np.where(gain > 0, BUY, SELL)
        values[np.abs(gain) < volatility / 2 * self.max_holding_period**0.5] = HOLD
        known_at = end

        # Walk all windows at once, bar by bar; drop those that have met a barrier.
        waiting = np.arange(len(bars))
        upper = entry * (1 + self.pt_multiplier * volatility)
        lower = entry * (1 - self.sl_multiplier * volatility)
        for ahead in range(1, self.max_holding_period + 1):
            check()
            at = bars[waiting] + ahead
            up, down = high[at] >= upper, low[at] <= lower
            met = up | down
            if not met.any():
                continue
            touched, touched_at = waiting[met], at[met]
            bought = np.where(down[met], up[met] & (close[touched_at] >= entry[touched]), up[met])
            values[touched] = np.where(bought, BUY, SELL)
            known_at[touched] = touched_at
            waiting, upper, lower = waiting[~met], upper[~met], lower[~met]
            if not len(waiting):
                break
        return values, known_at


def _log_returns(close: FloatArray) -> FloatArray:
    """Return each bar's logarithmic return; the first has none."""
    return np.diff(np.log(close), prepend=np.nan)
