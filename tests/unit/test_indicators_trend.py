"""Trend indicators against their published formulas, written out slowly."""

from itertools import pairwise

import numpy as np
import pandas as pd
import pytest

from ktrdr.features.indicators import INDICATORS


def compute(name: str, bars: pd.DataFrame, **parameters: object) -> dict[str, np.ndarray]:
    return dict(INDICATORS.get(name)(**parameters).compute(bars))


def exponential(values: list[float], period: int) -> list[float]:
    """From the mean of the first period on; shorter than the values by period - 1."""
    averages = [sum(values[:period]) / period]
    for value in values[period:]:
        averages.append(averages[-1] + (value - averages[-1]) * 2 / (period + 1))
    return averages


def test_sma_is_the_mean_of_a_window(eurusd: pd.DataFrame) -> None:
    expected = eurusd["close"].rolling(20).mean()
    np.testing.assert_allclose(compute("sma", eurusd)[""], expected, rtol=1e-12)


def test_wma_weighs_the_newest_most(eurusd: pd.DataFrame) -> None:
    closes = eurusd["close"].tolist()
    weights = range(1, 11)
    expected = [
        sum(weight * value for weight, value in zip(weights, closes[end - 10 : end], strict=True)) / 55
        for end in range(10, len(closes) + 1)
    ]
    np.testing.assert_allclose(compute("wma", eurusd, period=10)[""][9:], expected, rtol=1e-12)


@pytest.mark.parametrize("period", [1, 20])
def test_ema_starts_from_the_mean_of_its_first_period(eurusd: pd.DataFrame, period: int) -> None:
    expected = exponential(eurusd["close"].tolist(), period)
    np.testing.assert_allclose(compute("ema", eurusd, period=period)[""][period - 1 :], expected, rtol=1e-12)


def test_macd_is_the_difference_of_two_averages_that_start_together(eurusd: pd.DataFrame) -> None:
    closes = eurusd["close"].tolist()
    slow = exponential(closes, 26)
    fast = exponential(closes[26 - 12 :], 12)
    line = [quick - lazy for quick, lazy in zip(fast, slow, strict=True)]
    signal = exponential(line, 9)
    outputs = compute("macd", eurusd)
    np.testing.assert_allclose(outputs["line"][33:], line[8:], rtol=0, atol=1e-13)
    np.testing.assert_allclose(outputs["signal"][33:], signal, rtol=0, atol=1e-13)
    np.testing.assert_allclose(outputs["histogram"][33:], np.subtract(line[8:], signal), rtol=0, atol=1e-13)


@pytest.mark.parametrize("period", [2, 14])
def test_adx_is_wilders(eurusd: pd.DataFrame, period: int) -> None:
    high, low, close = (eurusd[name].tolist() for name in ("high", "low", "close"))
    ranges, ups, downs = [], [], []
    for at in range(1, len(close)):
        up, down = high[at] - high[at - 1], low[at - 1] - low[at]
        ups.append(up if up > down and up > 0 else 0.0)
        downs.append(down if down > up and down > 0 else 0.0)
        ranges.append(max(high[at], close[at - 1]) - min(low[at], close[at - 1]))

    def sums(values: list[float]) -> list[float]:
        """Wilder's running sums; the first is of one value less than a period."""
        running = sum(values[: period - 1])
        result = []
        for value in values[period - 1 :]:
            running += value - running / period
            result.append(running)
        return result

    plus = [100 * up / height for up, height in zip(sums(ups), sums(ranges), strict=True)]
    minus = [100 * down / height for down, height in zip(sums(downs), sums(ranges), strict=True)]
    strength = [100 * abs(p - m) / (p + m) for p, m in zip(plus, minus, strict=True)]
    average = sum(strength[:period]) / period
    adx = [average]
    for value in strength[period:]:
        average = (average * (period - 1) + value) / period
        adx.append(average)
    outputs = compute("adx", eurusd, period=period)
    warmup = 2 * period - 1
    np.testing.assert_allclose(outputs["adx"][warmup:], adx, rtol=0, atol=1e-8)
    np.testing.assert_allclose(outputs["plus_di"][warmup:], plus[period - 1 :], rtol=0, atol=1e-8)
    np.testing.assert_allclose(outputs["minus_di"][warmup:], minus[period - 1 :], rtol=0, atol=1e-8)


def test_aroon_tells_how_recent_the_extremes_are(eurusd: pd.DataFrame) -> None:
    high, low = eurusd["high"].tolist(), eurusd["low"].tolist()
    ups, downs = [], []
    for at in range(14, len(high)):
        window = range(at, at - 15, -1)  # the newest first, so that it wins among equals
        ups.append(100 * (14 - (at - max(window, key=lambda bar: high[bar]))) / 14)
        downs.append(100 * (14 - (at - min(window, key=lambda bar: low[bar]))) / 14)
    outputs = compute("aroon", eurusd)
    np.testing.assert_allclose(outputs["up"][14:], ups, rtol=1e-12)
    np.testing.assert_allclose(outputs["down"][14:], downs, rtol=1e-12)
    np.testing.assert_allclose(outputs["oscillator"][14:], np.subtract(ups, downs), atol=1e-10)


@pytest.mark.parametrize("factors", [(0.02, 0.02, 0.2), (0.01, 0.03, 0.1)])
def test_parabolic_sar_is_wilders(eurusd: pd.DataFrame, factors: tuple[float, float, float]) -> None:
    initial, step, limit = factors
    high, low = eurusd["high"].tolist(), eurusd["low"].tolist()
    fall = low[0] - low[1]
    rising = not (fall > 0 and fall > high[1] - high[0])
    extreme, stop = (high[1], low[0]) if rising else (low[1], high[0])
    factor = initial
    expected = [np.nan]
    before = 1  # the bar before; at the start there is none but the bar itself
    for at in range(1, len(high)):
        if low[at] <= stop if rising else high[at] >= stop:
            rising = not rising
            stop = extreme
            stop = min(stop, low[before], low[at]) if rising else max(stop, high[before], high[at])
            expected.append(stop)
            factor, extreme = initial, high[at] if rising else low[at]
        else:
            expected.append(stop)
            if high[at] > extreme if rising else low[at] < extreme:
                extreme = high[at] if rising else low[at]
                factor = min(factor + step, limit)
        stop += factor * (extreme - stop)
        stop = min(stop, low[before], low[at]) if rising else max(stop, high[before], high[at])
        before = at
    stops = compute("parabolicsar", eurusd, initial_af=initial, step_af=step, max_af=limit)[""]
    np.testing.assert_allclose(stops, expected, rtol=1e-12)
    assert sum(a < b for a, b in pairwise(np.sign(stops[1:] - eurusd["close"].to_numpy()[1:]))) > 100


class TestAgreementWithTheFormerSystem:
    """Its recursive averages started from the first bar: after 500 bars nothing is left of that."""

    def test_ema(self, eurusd: pd.DataFrame) -> None:
        former = eurusd["close"].ewm(span=20, adjust=True).mean()
        np.testing.assert_allclose(compute("ema", eurusd)[""][500:], former[500:], rtol=0, atol=1e-9)

    def test_macd(self, eurusd: pd.DataFrame) -> None:
        close = eurusd["close"]
        line = close.ewm(span=12, adjust=False).mean() - close.ewm(span=26, adjust=False).mean()
        signal = line.ewm(span=9, adjust=False).mean()
        outputs = compute("macd", eurusd)
        np.testing.assert_allclose(outputs["line"][500:], line[500:], rtol=0, atol=1e-9)
        np.testing.assert_allclose(outputs["signal"][500:], signal[500:], rtol=0, atol=1e-9)

    def test_adx(self, eurusd: pd.DataFrame) -> None:
        high, low, close = eurusd["high"], eurusd["low"], eurusd["close"]
        up, down = high.diff(), -low.diff()
        ranges = pd.concat([high - low, (high - close.shift()).abs(), (low - close.shift()).abs()], axis=1)

        def smooth(values: pd.Series) -> pd.Series:
            return values.ewm(alpha=1 / 14, adjust=False).mean()

        height = smooth(ranges.max(axis=1))
        plus = 100 * smooth(up.where((up > down) & (up > 0), 0.0)) / height
        minus = 100 * smooth(down.where((down > up) & (down > 0), 0.0)) / height
        adx = smooth((100 * (plus - minus).abs() / (plus + minus)).fillna(0))
        outputs = compute("adx", eurusd)
        np.testing.assert_allclose(outputs["plus_di"][500:], plus[500:], rtol=0, atol=1e-9)
        np.testing.assert_allclose(outputs["adx"][500:], adx[500:], rtol=0, atol=1e-9)
