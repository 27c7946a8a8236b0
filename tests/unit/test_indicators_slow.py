"""Indicators that TA-Lib lacks give what their formulas give when written out slowly."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ktrdr.features.indicators import INDICATORS
from tests.unit.slow_indicators import SLOW

CASES: list[tuple[str, dict[str, Any]]] = [
    ("adline", {}),
    ("adline", {"use_sma_smoothing": True, "smoothing_period": 5}),
    ("cmf", {}),
    ("cmf", {"period": 2}),
    ("distancefromma", {}),
    ("distancefromma", {"period": 1, "source": "volume"}),
    ("distancefromma", {"period": 7, "source": "volume"}),
    ("distancefromma", {"period": 7, "ma_type": "EMA", "source": "low"}),
    ("donchianchannels", {}),
    ("donchianchannels", {"period": 3}),
    ("fishertransform", {}),
    ("fishertransform", {"period": 2, "smoothing": 1}),
    ("ichimoku", {}),
    ("ichimoku", {"tenkan_period": 5, "kijun_period": 1, "senkou_b_period": 3, "displacement": 0}),
    ("keltnerchannels", {}),
    ("keltnerchannels", {"period": 3, "atr_period": 5, "multiplier": 0.5}),
    ("rvi", {}),
    ("rvi", {"period": 4, "signal_period": 1}),
    ("squeezeintensity", {}),
    ("squeezeintensity", {"bb_period": 30, "kc_period": 5, "bb_multiplier": 1, "kc_multiplier": 3.5}),
    ("squeezeintensity", {"bb_period": 3, "kc_period": 4, "source": "high"}),
    ("supertrend", {}),
    ("supertrend", {"period": 2, "multiplier": 0.5}),
    ("volumeratio", {}),
    ("volumeratio", {"period": 2}),
    ("vwap", {}),
    ("vwap", {"period": 0}),
    ("vwap", {"period": 1, "use_typical_price": False}),
    ("vwap", {"period": 5, "use_typical_price": False}),
    ("zigzag", {"threshold": 0.002}),
    ("zigzag", {"threshold": 0.0625, "source": "high"}),
]
NAMES = [f"{name}-{'-'.join(map(str, parameters.values())) or 'default'}" for name, parameters in CASES]
of_each = pytest.mark.parametrize(("name", "parameters"), CASES, ids=NAMES)


def assert_as_slow(name: str, parameters: dict[str, Any], bars: pd.DataFrame) -> None:
    indicator = INDICATORS.get(name)(**parameters)
    slow = SLOW[name]({column: bars[column].tolist() for column in bars.columns}, **parameters)
    fast = indicator.compute(bars)
    assert tuple(fast) == tuple(slow)
    for output, values in fast.items():
        expected = np.array(slow[output])
        expected[: indicator.warmup_bars] = np.nan
        if output in ("above_zero", "below_zero"):
            # What is 0 but for rounding may be on either side.
            expected[np.abs(fast["cmf"]) < 1e-12] = values[np.abs(fast["cmf"]) < 1e-12]
        scale = np.nanmax(np.abs(expected), initial=1e-300)
        np.testing.assert_allclose(values, expected, rtol=1e-8, atol=1e-10 * scale, err_msg=output)


def test_every_indicator_that_is_written_out_is_tried() -> None:
    assert {name for name, _ in CASES} == set(SLOW)


@of_each
def test_on_eurusd(name: str, parameters: dict[str, Any], eurusd: pd.DataFrame) -> None:
    assert_as_slow(name, parameters, eurusd.iloc[1000:1400])


# In ticks, so that bars without a height, equal closes and bars without volume are common.
ticks = st.integers(0, 4)
tick_bars = st.lists(
    st.tuples(st.integers(-6, 6), ticks, ticks, st.integers(-3, 3), st.sampled_from([0, 0, 1, 5, 1000])),
    min_size=60,
    max_size=90,
)


def bars_of_ticks(rows: list[tuple[int, int, int, int, int]]) -> pd.DataFrame:
    opens, moves = [100 + row[0] for row in rows], [row[3] for row in rows]
    closes = [start + move for start, move in zip(opens, moves, strict=True)]
    return pd.DataFrame(
        {
            "open": opens,
            "high": [max(pair) + row[1] for *pair, row in zip(opens, closes, rows, strict=True)],
            "low": [min(pair) - row[2] for *pair, row in zip(opens, closes, rows, strict=True)],
            "close": closes,
            "volume": [row[4] for row in rows],
        },
        index=pd.date_range("2020-01-01", periods=len(rows), freq="h", tz="UTC", name="timestamp"),
        dtype=np.float64,
    )


@of_each
@settings(max_examples=4)
@given(rows=tick_bars)
def test_on_made_up_bars(
    name: str, parameters: dict[str, Any], rows: list[tuple[int, int, int, int, int]]
) -> None:
    assert_as_slow(name, parameters, bars_of_ticks(rows))
