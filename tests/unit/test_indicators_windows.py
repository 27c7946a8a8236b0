"""Rolling sums are those of their windows, whatever was in the windows before."""

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from ktrdr.features.indicators import INDICATORS
from ktrdr.features.indicators.windows import total
from tests.unit.test_indicators_cases import bars_at

values = st.one_of(st.just(0.0), st.floats(-1e12, 1e12), st.floats(-1e-8, 1e-8))


@given(values=st.lists(values, max_size=60), period=st.integers(1, 20), missing=st.integers(0, 3))
def test_a_rolling_sum_is_that_of_the_window(values: list[float], period: int, missing: int) -> None:
    given_values = np.array([np.nan] * missing + values)
    sums = total(given_values, period)
    assert sums.shape == given_values.shape
    for end in range(1, len(sums) + 1):
        window = given_values[max(end - period, 0) : end]
        if len(window) < period or np.isnan(window).any():
            assert np.isnan(sums[end - 1])
        else:
            assert abs(sums[end - 1] - math.fsum(window)) <= 1e-14 * math.fsum(np.abs(window))


def test_what_has_left_the_window_leaves_nothing_behind() -> None:
    bars = bars_at([1.0] * 100)
    bars["volume"] = [1e12 / 3] * 50 + [1e-8] * 50
    np.testing.assert_allclose(INDICATORS.get("volumeratio")().compute(bars)[""][70:], 1, rtol=1e-15)
    bars = bars_at([1e8 / 3] * 50 + [1e-8] * 50)
    bars["high"], bars["low"] = bars["close"] * 1.1, bars["close"] * 0.9
    np.testing.assert_array_equal(INDICATORS.get("rvi")().compute(bars)["rvi"][70:], 0)
