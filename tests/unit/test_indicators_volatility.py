"""Volatility indicators against their published formulas, written out slowly."""

import statistics

import numpy as np
import pandas as pd
import pytest

from ktrdr.features.indicators import INDICATORS


def compute(name: str, bars: pd.DataFrame, **parameters: object) -> dict[str, np.ndarray]:
    return dict(INDICATORS.get(name)(**parameters).compute(bars))


@pytest.mark.parametrize("period", [1, 14])
def test_atr_is_wilders(eurusd: pd.DataFrame, period: int) -> None:
    high, low, close = (eurusd[name].tolist() for name in ("high", "low", "close"))
    ranges = [
        max(high[at], close[at - 1]) - min(low[at], close[at - 1])  # the true range
        for at in range(1, len(close))
    ]
    average = sum(ranges[:period]) / period
    expected = [np.nan] * period + [average]
    for value in ranges[period:]:
        average = (average * (period - 1) + value) / period
        expected.append(average)
    np.testing.assert_allclose(compute("atr", eurusd, period=period)[""], expected, rtol=1e-10)


@pytest.mark.parametrize("period", [2, 20])
def test_bollinger_bands_are_population_deviations_from_the_mean(eurusd: pd.DataFrame, period: int) -> None:
    eurusd = eurusd.iloc[:1000]
    closes = eurusd["close"].tolist()
    windows = [closes[end - period : end] for end in range(period, len(closes) + 1)]
    means = np.array([statistics.fmean(window) for window in windows])
    deviations = np.array([statistics.pstdev(window) for window in windows])
    outputs = compute("bollingerbands", eurusd, period=period, multiplier=2.5)
    np.testing.assert_allclose(outputs["middle"][period - 1 :], means, rtol=1e-12)
    np.testing.assert_allclose(outputs["upper"][period - 1 :], means + 2.5 * deviations, rtol=1e-10)
    np.testing.assert_allclose(outputs["lower"][period - 1 :], means - 2.5 * deviations, rtol=1e-10)
    width = compute("bollingerbandwidth", eurusd, period=period, multiplier=2.5)[""]
    np.testing.assert_allclose(width[period - 1 :], 5 * deviations / means, rtol=1e-5, atol=1e-14)


def test_bollinger_bands_of_a_price_far_below_one_do_not_collapse(eurusd: pd.DataFrame) -> None:
    prices = ["open", "high", "low", "close"]
    cheap = eurusd.assign(**{name: eurusd[name] * 1e-8 for name in prices})
    width = compute("bollingerbandwidth", eurusd)[""]
    np.testing.assert_allclose(compute("bollingerbandwidth", cheap)[""], width, rtol=1e-6)
