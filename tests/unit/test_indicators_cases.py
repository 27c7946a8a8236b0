"""Cases of single indicators: their ends, and what they give where there is nothing to measure."""

import numpy as np
import pandas as pd
import pytest

from ktrdr.features.indicators import INDICATORS

PRICES = ["open", "high", "low", "close"]


def compute(name: str, bars: pd.DataFrame, **parameters: object) -> dict[str, np.ndarray]:
    return dict(INDICATORS.get(name)(**parameters).compute(bars))


def bars_at(closes: list[float]) -> pd.DataFrame:
    """Bars of no height."""
    index = pd.date_range("2020-01-01", periods=len(closes), freq="h", tz="UTC", name="timestamp")
    return pd.DataFrame(dict.fromkeys(PRICES, closes) | {"volume": 1.0}, index=index, dtype=np.float64)


def test_rsi_is_100_when_every_change_is_a_gain_and_0_when_none_is() -> None:
    rising = [float(close) for close in range(1, 51)]
    np.testing.assert_array_equal(compute("rsi", bars_at(rising))[""][14:], 100)
    np.testing.assert_array_equal(compute("rsi", bars_at(rising[::-1]))[""][14:], 0)


def test_bollinger_bands_of_a_price_far_below_one_do_not_collapse(eurusd: pd.DataFrame) -> None:
    cheap = eurusd.assign(**{name: eurusd[name] * 1e-8 for name in PRICES})
    width = compute("bollingerbandwidth", eurusd)[""]
    np.testing.assert_allclose(compute("bollingerbandwidth", cheap)[""], width, rtol=1e-6)


def test_mfi_without_any_volume_is_neutral(eurusd: pd.DataFrame) -> None:
    np.testing.assert_array_equal(compute("mfi", eurusd.assign(volume=0.0))[""][14:], 50)


def test_mfi_is_neutral_again_once_the_price_has_stood_still_for_a_period(eurusd: pd.DataFrame) -> None:
    bars = eurusd.iloc[:100].copy()
    bars.iloc[50:, :4] = 1.25
    # The same typical price, but not the same sum of binary fractions.
    bars.iloc[51::2, 1:4] = [1.2501, 1.2499, 1.25]
    values = compute("mfi", bars)[""]
    assert values[63] != 50
    np.testing.assert_array_equal(values[64:], 50)


def test_a_turning_point_is_shown_from_the_bar_on_that_confirms_it() -> None:
    closes = [100.0, 101, 111, 120, 115, 109, 108, 90, 95, 100, 98]
    values = compute("zigzag", bars_at(closes), threshold=0.1)[""]
    # Up by 11 % at 111; 120 is confirmed at 108, which is 10 % below it, and 90 at 100, 11 % above it.
    assert values.tolist() == [100, 100, 100, 100, 100, 100, 120, 120, 120, 90, 90]


@pytest.mark.parametrize("sign", [1, -1])
def test_a_zigzag_takes_values_around_zero(sign: int) -> None:
    values = [0.0, 0, -2, -1, 0, 3, 0]
    bars = bars_at([sign * value for value in values])
    assert (sign * compute("zigzag", bars)[""]).tolist() == [0, 0, 0, -2, -2, -2, 3]


def test_supertrend_follows_a_rise_from_below_and_a_fall_from_above() -> None:
    closes = [100.0 + step for step in range(40)] + [140.0 - 3 * step for step in range(30)]
    outputs = compute("supertrend", bars_at(closes))
    close, trend, direction = np.array(closes[10:]), outputs["trend"][10:], outputs["direction"][10:]
    assert set(np.diff(direction)) == {0, -2}
    assert ((close - trend) * direction >= 0).all()
    within = direction[1:] == direction[:-1]
    assert (np.diff(trend)[within] * direction[1:][within] >= 0).all()


def test_a_supertrend_of_a_market_that_stands_still_does_not_turn() -> None:
    outputs = compute("supertrend", bars_at([1.1] * 40))
    np.testing.assert_array_equal(outputs["direction"][10:], 1)
    np.testing.assert_array_equal(outputs["trend"][10:], 1.1)


def test_the_cloud_of_ichimoku_is_that_of_some_bars_ago(eurusd: pd.DataFrame) -> None:
    bars = eurusd.iloc[:300]
    ahead, at_once = compute("ichimoku", bars), compute("ichimoku", bars, displacement=0)
    for name in ("senkou_a", "senkou_b"):
        np.testing.assert_array_equal(ahead[name][77:], at_once[name][51:-26])
    for name in ("tenkan", "kijun", "chikou"):
        np.testing.assert_array_equal(ahead[name][77:], at_once[name][77:])


def test_a_squeeze_is_half_where_the_bands_have_no_width_in_a_channel_that_has() -> None:
    bars = bars_at([100.0] * 60)
    bars["high"], bars["low"] = 101.0, 99.0
    np.testing.assert_array_equal(compute("squeezeintensity", bars)[""][20:], 0.5)


def test_cmf_says_on_which_side_of_zero_it_is() -> None:
    bars = bars_at([100.0] * 90)
    bars["high"], bars["low"] = 101.0, 99.0
    bars.iloc[:40, bars.columns.get_loc("close")] = 101.0
    bars.iloc[60:, bars.columns.get_loc("close")] = 99.0
    outputs = compute("cmf", bars, period=2)
    assert [outputs["above_zero"][at] for at in (39, 50, 70)] == [1, 0, 0]
    assert [outputs["below_zero"][at] for at in (39, 50, 70)] == [0, 0, 1]
    assert [outputs["cmf"][at] for at in (39, 50, 70)] == [1, 0, -1]


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
