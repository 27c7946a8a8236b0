"""The baseline of the feature stage: the same indicators and memberships as one writes them in pandas.

Vectorized where pandas can; where it cannot (mean deviations, bars since an extreme, a trailing stop), a
function of each window or a loop over plain numbers.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

from ktrdr.market.bars import Bars

Plain = Callable[..., pd.Series]


def plain_features(bars: Bars, indicators: dict[str, tuple[str, dict[str, Any]]]) -> pd.DataFrame:
    """Return a low (-100, 0, 50) and a high (bell at 50, 20 wide) of each indicator, without the warm-up."""
    columns: dict[str, pd.Series] = {}
    for name, (kind, parameters) in indicators.items():
        values = _PLAIN[kind](bars, **parameters)
        rising, falling = (values + 100) / 100, (50 - values) / 50
        columns[f"{name}_low"] = pd.concat([rising, falling], axis=1).min(axis=1, skipna=False).clip(lower=0)
        columns[f"{name}_high"] = np.exp(-(((values - 50) / 20) ** 2) / 2)
    return pd.DataFrame(columns).astype(np.float32).dropna()


def _wilder(values: pd.Series, period: int) -> pd.Series:
    return values.ewm(alpha=1 / period, adjust=False, min_periods=period).mean()


def _ema(values: pd.Series, period: int) -> pd.Series:
    return values.ewm(span=period, adjust=False, min_periods=period).mean()


def _true_range(bars: Bars) -> pd.Series:
    before = bars["close"].shift()
    ranges = [bars["high"] - bars["low"], (bars["high"] - before).abs(), (bars["low"] - before).abs()]
    return pd.concat(ranges, axis=1).max(axis=1)


def _place(bars: Bars, period: int) -> pd.Series:
    low = bars["low"].rolling(period).min()
    return (bars["close"] - low) / (bars["high"].rolling(period).max() - low)


def _rsi(bars: Bars, period: int) -> pd.Series:
    change = bars["close"].diff()
    gain, loss = _wilder(change.clip(lower=0), period), _wilder(-change.clip(upper=0), period)
    return 100 * gain / (gain + loss)


def _roc(bars: Bars, period: int) -> pd.Series:
    return 100 * bars["close"].pct_change(period)


def _momentum(bars: Bars, period: int) -> pd.Series:
    return bars["close"].diff(period)


def _macd(bars: Bars) -> pd.Series:
    return _ema(bars["close"], 12) - _ema(bars["close"], 26)


def _adx(bars: Bars, period: int) -> pd.Series:
    up, down = bars["high"].diff(), -bars["low"].diff()
    ranges = _wilder(_true_range(bars), period)
    plus = 100 * _wilder(up.where((up > down) & (up > 0), 0.0), period) / ranges
    minus = 100 * _wilder(down.where((down > up) & (down > 0), 0.0), period) / ranges
    return _wilder(100 * (plus - minus).abs() / (plus + minus), period)


def _atr(bars: Bars, period: int) -> pd.Series:
    return _wilder(_true_range(bars), period)


def _bandwidth(bars: Bars) -> pd.Series:
    window = bars["close"].rolling(20)
    return 4 * window.std(ddof=0) / window.mean()


def _cci(bars: Bars, period: int) -> pd.Series:
    typical = (bars["high"] + bars["low"] + bars["close"]) / 3
    window = typical.rolling(period)
    deviation = window.apply(lambda values: np.abs(values - values.mean()).mean(), raw=True)
    return (typical - window.mean()) / (0.015 * deviation)


def _williamsr(bars: Bars, period: int) -> pd.Series:
    return 100 * _place(bars, period) - 100


def _stochastic(bars: Bars) -> pd.Series:
    return (100 * _place(bars, 14)).rolling(3).mean()


def _mfi(bars: Bars, period: int) -> pd.Series:
    typical = (bars["high"] + bars["low"] + bars["close"]) / 3
    flow, change = typical * bars["volume"], typical.diff()
    up = flow.where(change > 0, 0.0).rolling(period).sum()
    return 100 * up / (up + flow.where(change < 0, 0.0).rolling(period).sum())


def _aroon(bars: Bars, period: int) -> pd.Series:
    since = bars["high"].rolling(period + 1).apply(lambda values: values[::-1].argmax(), raw=True)
    return 100 * (period - since) / period


def _distance(bars: Bars, period: int) -> pd.Series:
    average = bars["close"].rolling(period).mean()
    return 100 * (bars["close"] - average) / average


def _cmf(bars: Bars, period: int) -> pd.Series:
    multiplier = (2 * bars["close"] - bars["low"] - bars["high"]) / (bars["high"] - bars["low"])
    return (multiplier * bars["volume"]).rolling(period).sum() / bars["volume"].rolling(period).sum()


def _volumeratio(bars: Bars, period: int) -> pd.Series:
    return bars["volume"] / bars["volume"].rolling(period).mean()


def _fisher(bars: Bars) -> pd.Series:
    low = bars["low"].rolling(10).min()
    middle = (bars["high"] + bars["low"]) / 2
    place = (2 * (middle - low) / (bars["high"].rolling(10).max() - low) - 1).clip(-0.999, 0.999)
    return _ema(0.5 * np.log((1 + place) / (1 - place)), 3)


def _rvi(bars: Bars) -> pd.Series:
    def smoothed(values: pd.Series) -> pd.Series:
        return (values + 2 * values.shift(1) + 2 * values.shift(2) + values.shift(3)) / 6

    vigor, height = smoothed(bars["close"] - bars["open"]), smoothed(bars["high"] - bars["low"])
    return vigor.rolling(10).sum() / height.rolling(10).sum()


def _supertrend(bars: Bars) -> pd.Series:
    middle, distance = (bars["high"] + bars["low"]) / 2, 3 * _wilder(_true_range(bars).iloc[1:], 10)
    upper, lower, previous, rising = np.inf, -np.inf, 0.0, True
    trend = []
    for basic_upper, basic_lower, close in zip(
        middle + distance, middle - distance, bars["close"], strict=True
    ):
        if basic_upper < upper or previous > upper:
            upper = basic_upper
        if basic_lower > lower or previous < lower:
            lower = basic_lower
        rising = close >= lower if rising else close > upper
        trend.append(lower if rising else upper)
        previous = close
    return pd.Series(trend, index=bars.index).where(distance.notna())


_PLAIN: dict[str, Plain] = {
    "rsi": _rsi,
    "roc": _roc,
    "momentum": _momentum,
    "macd": _macd,
    "adx": _adx,
    "atr": _atr,
    "bollingerbandwidth": _bandwidth,
    "cci": _cci,
    "williamsr": _williamsr,
    "stochastic": _stochastic,
    "mfi": _mfi,
    "aroon": _aroon,
    "distancefromma": _distance,
    "cmf": _cmf,
    "volumeratio": _volumeratio,
    "fishertransform": _fisher,
    "rvi": _rvi,
    "supertrend": _supertrend,
}
