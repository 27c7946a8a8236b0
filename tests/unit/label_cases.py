"""What tests of labels share: bars by hand, labels by bar number, and slow definitions of volatility."""

import math
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pandas as pd

from ktrdr.labels import LABELS, Labels

MakeBars = Callable[..., pd.DataFrame]


def go_on() -> None:
    """A check that never stops anything."""


def bars_of(rows: list[tuple[float, float, float]]) -> pd.DataFrame:
    """Bars of these highs, lows and closes."""
    table = pd.DataFrame(rows, columns=["high", "low", "close"], dtype=float)
    table.index = pd.date_range("2020-01-01", periods=len(rows), freq="1h", tz="UTC")
    return table.assign(open=table["close"], volume=1.0)


def bars_closing_at(closes: list[float]) -> pd.DataFrame:
    """Bars without a range."""
    return bars_of([(close, close, close) for close in closes])


def compute(name: str, bars: pd.DataFrame, **parameters: object) -> dict[int, tuple[float, int]]:
    """Bar → label and the bar at which it is known, by number."""
    return by_number(LABELS.get(name)(**parameters).compute(bars, go_on), bars)


def by_number(labels: Labels, bars: pd.DataFrame) -> dict[int, tuple[float, int]]:
    """Bar → label and the bar at which it is known, by number."""
    numbers = bars.index.get_indexer(labels.times).tolist()
    known = bars.index.get_indexer(labels.known_at).tolist()
    return dict(zip(numbers, zip(labels.values.tolist(), known, strict=True), strict=True))


def volatility_by_definition(bars: pd.DataFrame, at: int, span: int, method: str) -> float | None:
    """Weighted mean, or deviation, of the values up to one bar; None while there are too few."""
    past = bars.iloc[: at + 1]
    if method == "atr":
        values = ((past["high"] - past["low"]) / past["close"]).tolist()
    else:
        values = [math.log(now / before) for before, now in pairwise(past["close"].tolist())]
    if len(values) < span:
        return None
    weights = [(1 - 2 / (span + 1)) ** age for age in reversed(range(len(values)))]
    total = sum(weights)
    mean = sum(weight * value for weight, value in zip(weights, values, strict=True)) / total
    if method == "atr":
        return mean
    variance = sum(w * (value - mean) ** 2 for w, value in zip(weights, values, strict=True)) / total
    unbiased = variance * total**2 / (total**2 - sum(weight**2 for weight in weights))
    return math.sqrt(unbiased)


def triple_barrier_by_definition(
    bars: pd.DataFrame, pt: float, sl: float, holding: int, span: int, method: str
) -> dict[int, tuple[int, int]]:
    """Bar → BUY, HOLD or SELL (0 to 2), and the bar at which it is known."""
    high, low, close = (bars[name].tolist() for name in ("high", "low", "close"))
    labels = {}
    for at in range(len(bars) - holding):
        volatility = volatility_by_definition(bars, at, span, method)
        if volatility is None:
            continue
        upper, lower = close[at] * (1 + pt * volatility), close[at] * (1 - sl * volatility)
        for ahead in range(at + 1, at + holding + 1):
            up, down = high[ahead] >= upper, low[ahead] <= lower
            if up and down:
                labels[at] = (0 if close[ahead] >= close[at] else 2, ahead)
            elif up or down:
                labels[at] = (0 if up else 2, ahead)
            if up or down:
                break
        else:
            change = (close[at + holding] - close[at]) / close[at]
            small = abs(change) < volatility / 2 * math.sqrt(holding)
            labels[at] = (1 if small else 0 if change > 0 else 2, at + holding)
    return labels


def deviation(values: np.ndarray) -> float:
    """Of a sample."""
    return float(np.std(values, ddof=1))
