"""Momentum indicators against their published formulas, written out slowly."""

from itertools import pairwise

import numpy as np
import pandas as pd
import pytest

from ktrdr.features.indicators import INDICATORS


def compute(name: str, bars: pd.DataFrame, **parameters: object) -> dict[str, np.ndarray]:
    return dict(INDICATORS.get(name)(**parameters).compute(bars))


@pytest.mark.parametrize("period", [2, 14, 50])
def test_rsi_is_wilders(eurusd: pd.DataFrame, period: int) -> None:
    changes = [later - now for now, later in pairwise(eurusd["close"])]
    gain = sum(max(change, 0) for change in changes[:period]) / period
    loss = sum(max(-change, 0) for change in changes[:period]) / period
    expected = [np.nan] * period + [100 * gain / (gain + loss)]
    for change in changes[period:]:
        gain = (gain * (period - 1) + max(change, 0)) / period
        loss = (loss * (period - 1) + max(-change, 0)) / period
        expected.append(100 * gain / (gain + loss))
    np.testing.assert_allclose(compute("rsi", eurusd, period=period)[""], expected, rtol=0, atol=1e-8)


def test_rsi_is_100_when_every_change_is_a_gain_and_0_when_none_is(eurusd: pd.DataFrame) -> None:
    rising = eurusd.iloc[:50].assign(close=np.arange(1.0, 51.0))
    np.testing.assert_array_equal(compute("rsi", rising)[""][14:], 100)
    falling = rising.assign(close=np.arange(50.0, 0.0, -1.0))
    np.testing.assert_array_equal(compute("rsi", falling)[""][14:], 0)


def test_roc_and_momentum_compare_with_the_bar_a_period_ago(eurusd: pd.DataFrame) -> None:
    closes = list(eurusd["close"])
    differences = [now - before for before, now in zip(closes, closes[24:], strict=False)]
    rates = [100 * (now - before) / before for before, now in zip(closes, closes[24:], strict=False)]
    nothing = [np.nan] * 24
    np.testing.assert_allclose(compute("momentum", eurusd, period=24)[""], nothing + differences, atol=1e-15)
    np.testing.assert_allclose(compute("roc", eurusd, period=24)[""], nothing + rates, rtol=0, atol=1e-10)


def test_the_source_may_be_another_column(eurusd: pd.DataFrame) -> None:
    expected = eurusd["volume"].diff(3)
    values = compute("momentum", eurusd, period=3, source="volume")[""]
    np.testing.assert_allclose(values, expected.to_numpy())


@pytest.mark.parametrize("periods", [(14, 3, 3), (5, 1, 1), (1, 3, 2)])
def test_stochastic_is_the_smoothed_place_in_the_range(
    eurusd: pd.DataFrame, periods: tuple[int, int, int]
) -> None:
    k_period, smooth_k, d_period = periods
    high, low, close = (eurusd[name].tolist() for name in ("high", "low", "close"))
    raw = []
    for end in range(k_period, len(close) + 1):
        highest, lowest = max(high[end - k_period : end]), min(low[end - k_period : end])
        height = highest - lowest
        raw.append(100 * (close[end - 1] - lowest) / height if height else 50.0)
    k = [float(np.mean(raw[end - smooth_k : end])) for end in range(smooth_k, len(raw) + 1)]
    d = [float(np.mean(k[end - d_period : end])) for end in range(d_period, len(k) + 1)]
    outputs = compute("stochastic", eurusd, k_period=k_period, smooth_k=smooth_k, d_period=d_period)
    np.testing.assert_allclose(outputs["d"][-len(d) :], d, rtol=0, atol=1e-8)
    np.testing.assert_allclose(outputs["k"][-len(d) :], k[-len(d) :], rtol=0, atol=1e-8)


@pytest.mark.parametrize("period", [1, 14])
def test_williams_r_is_the_place_in_the_range_below_zero(eurusd: pd.DataFrame, period: int) -> None:
    high, low, close = (eurusd[name].tolist() for name in ("high", "low", "close"))
    expected = [np.nan] * (period - 1)
    for end in range(period, len(close) + 1):
        highest, lowest = max(high[end - period : end]), min(low[end - period : end])
        height = highest - lowest
        expected.append(-100 * (highest - close[end - 1]) / height if height else -50.0)
    np.testing.assert_allclose(compute("williamsr", eurusd, period=period)[""], expected, rtol=0, atol=1e-9)


def test_cci_is_the_distance_from_the_mean_in_mean_deviations(eurusd: pd.DataFrame) -> None:
    typical = ((eurusd["high"] + eurusd["low"] + eurusd["close"]) / 3).tolist()
    expected = [np.nan] * 19
    for end in range(20, len(typical) + 1):
        window = typical[end - 20 : end]
        mean = sum(window) / 20
        deviation = sum(abs(value - mean) for value in window) / 20
        expected.append((window[-1] - mean) / (0.015 * deviation))
    np.testing.assert_allclose(compute("cci", eurusd)[""], expected, rtol=0, atol=1e-6)
