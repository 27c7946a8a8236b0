"""What must hold for every registered indicator, whatever it computes."""

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from ktrdr.errors import UnknownNameError
from ktrdr.features.causality import indicator_leaks
from ktrdr.features.contract import indicator_faults
from ktrdr.features.indicators import INDICATORS, Indicator

MakeBars = Callable[..., pd.DataFrame]

# Besides the defaults: the shortest windows, and such as differ from each other.
SHORT = {
    "adx": {"period": 2},
    "aroon": {"period": 2},
    "atr": {"period": 1},
    "bollingerbands": {"period": 2},
    "bollingerbandwidth": {"period": 2, "multiplier": 1},
    "cci": {"period": 2},
    "ema": {"period": 1},
    "macd": {"fast_period": 2, "slow_period": 3, "signal_period": 1},
    "mfi": {"period": 2},
    "momentum": {"period": 1, "source": "volume"},
    "obv": {},
    "parabolicsar": {"initial_af": 0.01, "step_af": 0.03, "max_af": 0.1},
    "roc": {"period": 1},
    "rsi": {"period": 2, "source": "open"},
    "sma": {"period": 2},
    "stochastic": {"k_period": 1, "d_period": 1, "smooth_k": 1},
    "williamsr": {"period": 1},
    "wma": {"period": 2},
}

VARIANTS = [
    pytest.param(kind(**parameters), id=f"{name}-{which}")
    for name, kind in INDICATORS
    for which, parameters in (("default", {}), ("short", SHORT[name]))
]


def test_every_indicator_is_tested_with_short_windows_too() -> None:
    assert sorted(SHORT) == INDICATORS.names()


@pytest.mark.parametrize("indicator", VARIANTS)
def test_every_indicator_keeps_its_promises(indicator: Indicator, eurusd: pd.DataFrame) -> None:
    assert indicator_faults(indicator, eurusd) == ()
    for values in indicator.compute(eurusd).values():
        assert np.isfinite(values[indicator.warmup_bars :]).all()


@pytest.mark.parametrize("indicator", VARIANTS)
@settings(max_examples=5)
@given(seed=st.integers(0, 2**32 - 1))
def test_the_future_changes_nothing_before_to_the_last_bit(
    indicator: Indicator, random_bars: MakeBars, seed: int
) -> None:
    assert indicator_leaks(indicator, random_bars(300, seed=seed), seed=seed, tolerance=0) == ()


@pytest.mark.parametrize("indicator", VARIANTS)
@pytest.mark.parametrize("rows", [0, 1, 2])
def test_too_few_bars_give_no_value_rather_than_an_error(
    indicator: Indicator, rows: int, eurusd: pd.DataFrame
) -> None:
    for values in indicator.compute(eurusd.iloc[:rows]).values():
        assert values.shape == (rows,)
        assert np.isnan(values).sum() == min(rows, indicator.warmup_bars)


@pytest.mark.parametrize("indicator", VARIANTS)
def test_neither_the_layout_nor_the_type_of_the_bars_matters(
    indicator: Indicator, eurusd: pd.DataFrame
) -> None:
    bars = eurusd.iloc[:500].round({"volume": 0})
    spread = pd.DataFrame(
        np.repeat(bars.to_numpy(), 2, axis=1)[:, ::2], index=bars.index, columns=bars.columns
    )
    integers = bars.astype({"volume": np.int64})
    for name, values in indicator.compute(bars).items():
        np.testing.assert_array_equal(indicator.compute(spread)[name], values)
        np.testing.assert_array_equal(indicator.compute(integers)[name], values)


@pytest.mark.parametrize(
    ("name", "parameters", "neutral"),
    [
        ("rsi", {}, 50),
        ("roc", {}, 0),
        ("momentum", {}, 0),
        ("macd", {}, 0),
        ("stochastic", {}, 50),
        ("williamsr", {}, -50),
        ("cci", {}, 0),
        ("mfi", {}, 50),
        ("adx", {}, 0),
        ("atr", {}, 0),
        ("bollingerbandwidth", {}, 0),
        ("sma", {}, 1.25),
    ],
)
def test_a_market_that_stands_still_is_neither_high_nor_low(
    name: str, parameters: dict[str, object], neutral: float, eurusd: pd.DataFrame
) -> None:
    flat = eurusd.iloc[:300].assign(open=1.25, high=1.25, low=1.25, close=1.25)
    indicator = INDICATORS.get(name)(**parameters)
    for values in indicator.compute(flat).values():
        np.testing.assert_array_equal(values[indicator.warmup_bars :], neutral)


@pytest.mark.parametrize("name", ["roc", "bollingerbandwidth"])
def test_what_is_relative_to_zero_has_no_value(name: str, eurusd: pd.DataFrame) -> None:
    indicator = INDICATORS.get(name)(period=2, source="volume")
    bars = eurusd.iloc[:20].copy()
    bars.iloc[10:12, bars.columns.get_loc("volume")] = 0.0
    (values,) = indicator.compute(bars).values()
    assert np.isnan(values[indicator.warmup_bars :]).sum() == (2 if name == "roc" else 1)


@pytest.mark.parametrize(
    ("spelling", "name"),
    [
        ("RSI", "rsi"),
        ("RSIIndicator", "rsi"),
        ("SimpleMovingAverage", "sma"),
        ("ExponentialMovingAverage", "ema"),
        ("WeightedMovingAverage", "wma"),
        ("bbands", "bollingerbands"),
    ],
)
def test_indicators_are_known_by_the_names_that_strategies_use(spelling: str, name: str) -> None:
    assert INDICATORS.canonical(spelling) == name


def test_an_unknown_indicator_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(UnknownNameError) as caught:
        INDICATORS.get("bolingerbands")
    assert caught.value.nearest == "bollingerbands"


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("rsi", {"period": 1}),
        ("rsi", {"period": 101}),
        ("rsi", {"period": 14.0}),
        ("rsi", {"period": "14"}),
        ("rsi", {"length": 14}),
        ("rsi", {"source": "typical"}),
        ("macd", {"fast_period": 26, "slow_period": 26}),
        ("bollingerbands", {"multiplier": 0}),
        ("bollingerbands", {"multiplier": float("nan")}),
        ("parabolicsar", {"initial_af": float("inf")}),
    ],
)
def test_a_wrong_parameter_is_refused(name: str, parameters: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        INDICATORS.get(name)(**parameters)


def test_a_macd_whose_fast_average_is_the_slower_one_says_so() -> None:
    with pytest.raises(ValidationError, match=r"fast_period \(26\) must be less than slow_period \(12\)"):
        INDICATORS.get("macd")(fast_period=26, slow_period=12)


@pytest.mark.parametrize("name", INDICATORS.names())
def test_former_names_lead_to_parameters_and_ignored_names_do_not(name: str) -> None:
    kind = INDICATORS.get(name)
    assert set(kind.former_names.values()) <= set(kind.model_fields)
    assert not set(kind.ignored_names) & set(kind.model_fields)
