"""Volume indicators against their published formulas, written out slowly."""

import numpy as np
import pandas as pd
import pytest

from ktrdr.features.indicators import INDICATORS


def compute(name: str, bars: pd.DataFrame, **parameters: object) -> np.ndarray:
    return INDICATORS.get(name)(**parameters).compute(bars)[""]


def test_obv_adds_volume_on_a_rise_and_takes_it_away_on_a_fall(eurusd: pd.DataFrame) -> None:
    closes, volumes = eurusd["close"].tolist(), eurusd["volume"].tolist()
    expected = [volumes[0]]
    for at in range(1, len(closes)):
        sign = (closes[at] > closes[at - 1]) - (closes[at] < closes[at - 1])
        expected.append(expected[-1] + sign * volumes[at])
    np.testing.assert_allclose(compute("obv", eurusd), expected, rtol=1e-9)


@pytest.mark.parametrize("scale", [1.0, 1e-9])
def test_mfi_is_the_share_of_the_flow_that_went_up(eurusd: pd.DataFrame, scale: float) -> None:
    bars = eurusd.assign(volume=eurusd["volume"] * scale)
    # In whole points: two bars of equal typical price must be equal, whatever binary fractions make of it.
    typical = (bars[["high", "low", "close"]] * 1e5).round().astype(int).sum(axis=1).tolist()
    volumes = bars["volume"].tolist()
    flows = [
        (typical[at] * volumes[at], (typical[at] > typical[at - 1]) - (typical[at] < typical[at - 1]))
        for at in range(1, len(typical))
    ]
    expected = [np.nan] * 14
    for end in range(14, len(flows) + 1):
        window = flows[end - 14 : end]
        up = sum(flow for flow, sign in window if sign > 0)
        down = sum(flow for flow, sign in window if sign < 0)
        expected.append(100 * up / (up + down))
    np.testing.assert_allclose(compute("mfi", bars), expected, rtol=0, atol=1e-8)


def test_mfi_without_any_volume_is_neutral(eurusd: pd.DataFrame) -> None:
    np.testing.assert_array_equal(compute("mfi", eurusd.assign(volume=0.0))[14:], 50)


def test_mfi_is_neutral_again_once_the_price_has_stood_still_for_a_period(eurusd: pd.DataFrame) -> None:
    bars = eurusd.iloc[:100].copy()
    bars.iloc[50:, :4] = 1.25
    # The same typical price, but not the same sum of binary fractions.
    bars.iloc[51::2, 1:4] = [1.2501, 1.2499, 1.25]
    values = compute("mfi", bars)
    assert values[63] != 50
    np.testing.assert_array_equal(values[64:], 50)
