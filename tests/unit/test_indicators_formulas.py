"""Every indicator gives what its formula gives when it is written out slowly."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ktrdr.features.indicators import INDICATORS
from tests.unit.slow_classics import CLASSICS
from tests.unit.slow_indicators import OTHERS

SLOW = CLASSICS | OTHERS

CASES: list[tuple[str, dict[str, Any]]] = [
    ("adline", {}),
    ("adline", {"use_sma_smoothing": True, "smoothing_period": 5}),
    ("adx", {}),
    ("adx", {"period": 2}),
    ("aroon", {}),
    ("aroon", {"period": 2}),
    ("atr", {}),
    ("atr", {"period": 1}),
    ("bollingerbands", {"multiplier": 2.5}),
    ("bollingerbands", {"period": 2, "source": "volume"}),
    ("bollingerbandwidth", {}),
    ("bollingerbandwidth", {"period": 2, "multiplier": 1, "source": "volume"}),
    ("cci", {}),
    ("cci", {"period": 2}),
    ("cmf", {}),
    ("cmf", {"period": 2}),
    ("distancefromma", {}),
    ("distancefromma", {"period": 1, "source": "volume"}),
    ("distancefromma", {"period": 7, "source": "volume"}),
    ("distancefromma", {"period": 7, "ma_type": "EMA", "source": "low"}),
    ("donchianchannels", {}),
    ("donchianchannels", {"period": 3}),
    ("ema", {}),
    ("ema", {"period": 1, "source": "high"}),
    ("fishertransform", {}),
    ("fishertransform", {"period": 2, "smoothing": 1}),
    ("ichimoku", {}),
    ("ichimoku", {"tenkan_period": 5, "kijun_period": 1, "senkou_b_period": 3, "displacement": 0}),
    ("keltnerchannels", {}),
    ("keltnerchannels", {"period": 3, "atr_period": 5, "multiplier": 0.5}),
    ("macd", {}),
    ("macd", {"fast_period": 2, "slow_period": 7, "signal_period": 1, "source": "open"}),
    ("mfi", {}),
    ("mfi", {"period": 2}),
    ("momentum", {}),
    ("momentum", {"period": 1, "source": "volume"}),
    ("obv", {}),
    ("parabolicsar", {}),
    ("parabolicsar", {"initial_af": 0.01, "step_af": 0.03, "max_af": 0.1}),
    ("roc", {}),
    ("roc", {"period": 1, "source": "volume"}),
    ("rsi", {}),
    ("rsi", {"period": 2, "source": "volume"}),
    ("rvi", {}),
    ("rvi", {"period": 4, "signal_period": 1}),
    ("sma", {}),
    ("sma", {"period": 2, "source": "low"}),
    ("squeezeintensity", {}),
    ("squeezeintensity", {"bb_period": 30, "kc_period": 5, "bb_multiplier": 1, "kc_multiplier": 3.5}),
    ("squeezeintensity", {"bb_period": 3, "kc_period": 4, "source": "high"}),
    ("stochastic", {}),
    ("stochastic", {"k_period": 1, "smooth_k": 3, "d_period": 2}),
    ("stochastic", {"k_period": 5, "smooth_k": 1, "d_period": 1}),
    ("supertrend", {}),
    ("supertrend", {"period": 2, "multiplier": 0.5}),
    ("volumeratio", {}),
    ("volumeratio", {"period": 2}),
    ("vwap", {}),
    ("vwap", {"period": 0}),
    ("vwap", {"period": 1, "use_typical_price": False}),
    ("vwap", {"period": 5, "use_typical_price": False}),
    ("williamsr", {}),
    ("williamsr", {"period": 1}),
    ("wma", {}),
    ("wma", {"period": 2, "source": "volume"}),
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


def test_every_indicator_is_written_out_and_tried() -> None:
    assert {name for name, _ in CASES} == set(SLOW) == set(INDICATORS.names())


@of_each
def test_on_eurusd(name: str, parameters: dict[str, Any], eurusd: pd.DataFrame) -> None:
    assert_as_slow(name, parameters, eurusd.iloc[1000:1400])


def bars_of_ticks(seed: int, rows: int, still: slice) -> pd.DataFrame:
    """Bars in ticks, so that equal prices, bars of no height and such without volume are common.

    In between, the market stands still for a while.
    """
    random = np.random.default_rng(seed)
    opens = 100 + random.integers(-6, 7, rows)
    moves = random.integers(-3, 4, (3, rows))
    volumes = random.choice([0, 0, 1, 5, 1000], rows)
    for values in (opens, moves[0], moves[1], moves[2], volumes):
        values[still] = values[still][:1] * (values is opens)
    closes = opens + moves[0]
    return pd.DataFrame(
        {
            "open": opens,
            "high": np.maximum(opens, closes) + np.abs(moves[1]),
            "low": np.minimum(opens, closes) - np.abs(moves[2]),
            "close": closes,
            "volume": volumes,
        },
        index=pd.date_range("2020-01-01", periods=rows, freq="h", tz="UTC", name="timestamp"),
        dtype=np.float64,
    )


@of_each
@settings(max_examples=5)
@given(
    seed=st.integers(0, 2**32 - 1),
    rows=st.integers(80, 120),
    start=st.integers(0, 60),
    still=st.integers(0, 60),
)
def test_on_made_up_bars(
    name: str, parameters: dict[str, Any], seed: int, rows: int, start: int, still: int
) -> None:
    assert_as_slow(name, parameters, bars_of_ticks(seed, rows, slice(start, start + still)))
