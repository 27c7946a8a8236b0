"""What must hold for every registered indicator, whatever it computes."""

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from ktrdr.errors import UnknownNameError
from ktrdr.features.causality import indicator_leaks, with_another_future
from ktrdr.features.contract import indicator_faults
from ktrdr.features.indicators import INDICATORS, Indicator

MakeBars = Callable[..., pd.DataFrame]

# Besides the defaults: the shortest windows, such as differ from each other, and what is off by default.
SHORT = {
    "adline": {"use_sma_smoothing": True, "smoothing_period": 2},
    "adx": {"period": 2},
    "aroon": {"period": 2},
    "atr": {"period": 1},
    "bollingerbands": {"period": 2},
    "bollingerbandwidth": {"period": 2, "multiplier": 1},
    "cci": {"period": 2},
    "cmf": {"period": 2},
    "distancefromma": {"period": 1, "ma_type": "EMA"},
    "donchianchannels": {"period": 2},
    "ema": {"period": 1},
    "fishertransform": {"period": 2, "smoothing": 1},
    "ichimoku": {"tenkan_period": 1, "kijun_period": 1, "senkou_b_period": 1, "displacement": 0},
    "keltnerchannels": {"period": 2, "atr_period": 7},
    "macd": {"fast_period": 2, "slow_period": 3, "signal_period": 1},
    "mfi": {"period": 2},
    "momentum": {"period": 1, "source": "volume"},
    "obv": {},
    "parabolicsar": {"initial_af": 0.01, "step_af": 0.03, "max_af": 0.1},
    "roc": {"period": 1},
    "rsi": {"period": 2, "source": "open"},
    "rvi": {"period": 4, "signal_period": 1},
    "sma": {"period": 2},
    "squeezeintensity": {"bb_period": 30, "kc_period": 2},
    "stochastic": {"k_period": 1, "d_period": 1, "smooth_k": 1},
    "supertrend": {"period": 2, "multiplier": 0.5},
    "volumeratio": {"period": 2},
    "vwap": {"period": 0, "use_typical_price": False},
    "williamsr": {"period": 1},
    "wma": {"period": 2},
    "zigzag": {"threshold": 0.001},
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
    made_up = with_another_future(eurusd.iloc[:400], 0, np.random.default_rng(1))
    assert indicator_faults(indicator, made_up) == ()
    for values in indicator.compute(eurusd).values():
        assert np.isfinite(values[indicator.warmup_bars :]).all()


@pytest.mark.parametrize("indicator", VARIANTS)
@settings(max_examples=2)
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
        ("cmf", {}, 0),
        ("distancefromma", {}, 0),
        ("donchianchannels", {}, 1.25),
        ("fishertransform", {}, 0),
        ("ichimoku", {}, 1.25),
        ("keltnerchannels", {}, 1.25),
        ("rvi", {}, 0),
        ("sma", {}, 1.25),
        ("squeezeintensity", {}, 0),
        ("vwap", {}, 1.25),
        ("zigzag", {}, 1.25),
    ],
)
def test_a_market_that_stands_still_is_neither_high_nor_low(
    name: str, parameters: dict[str, object], neutral: float, eurusd: pd.DataFrame
) -> None:
    flat = eurusd.iloc[:300].assign(open=1.25, high=1.25, low=1.25, close=1.25)
    indicator = INDICATORS.get(name)(**parameters)
    for values in indicator.compute(flat).values():
        np.testing.assert_allclose(values[indicator.warmup_bars :], neutral, rtol=1e-15)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(
    ("name", "parameters", "gaps"),
    [
        ("roc", {"source": "volume"}, 3),
        ("bollingerbandwidth", {"source": "volume"}, 2),
        ("distancefromma", {"source": "volume"}, 2),
        ("vwap", {}, 2),
    ],
)
def test_what_is_relative_to_zero_has_no_value(
    name: str, parameters: dict[str, object], gaps: int, seed: int, random_bars: MakeBars
) -> None:
    indicator = INDICATORS.get(name)(period=2, **parameters)
    bars = random_bars(20, seed=seed)
    bars.iloc[10:13, bars.columns.get_loc("volume")] = 0.0
    (values,) = indicator.compute(bars).values()
    assert np.isnan(values[indicator.warmup_bars :]).sum() == gaps


@pytest.mark.parametrize("indicator", VARIANTS)
@pytest.mark.parametrize("volume", [0.0, 1e-8, 1e12])
def test_a_market_without_a_move_or_without_volume_gives_numbers_or_nothing(
    indicator: Indicator, volume: float, random_bars: MakeBars
) -> None:
    moving = random_bars(120).assign(volume=volume)
    still = moving.assign(open=1.1, high=1.1, low=1.1, close=1.1)
    stopping = pd.concat([moving.iloc[:60], still.iloc[60:]])
    falling_asleep = random_bars(120)
    falling_asleep.iloc[60:, falling_asleep.columns.get_loc("volume")] = volume
    for bars in (moving, still, stopping, falling_asleep):
        for values in indicator.compute(bars).values():
            assert not np.isinf(values).any()


@pytest.mark.parametrize("indicator", VARIANTS)
@pytest.mark.parametrize("scale", [2.0**-27, 2.0**27], ids=["1e-8", "1e8"])
def test_the_unit_of_prices_does_not_matter(indicator: Indicator, scale: float, eurusd: pd.DataFrame) -> None:
    bars = eurusd.iloc[:600]
    scaled = bars.assign(**{name: bars[name] * scale for name in ("open", "high", "low", "close")})
    for name, values in indicator.compute(scaled).items():
        as_before = indicator.compute(bars)[name]
        in_prices = not np.allclose(values, as_before, rtol=1e-6, atol=0, equal_nan=True)
        np.testing.assert_allclose(values, as_before * scale if in_prices else as_before, rtol=1e-6)


@pytest.mark.parametrize("indicator", VARIANTS)
def test_one_bar_more_than_the_warm_up_is_enough(indicator: Indicator, eurusd: pd.DataFrame) -> None:
    for values in indicator.compute(eurusd.iloc[: indicator.warmup_bars + 1]).values():
        np.testing.assert_array_equal(np.isfinite(values), [False] * indicator.warmup_bars + [True])


@pytest.mark.parametrize(
    ("spelling", "name"),
    [
        ("RSI", "rsi"),
        ("RSIIndicator", "rsi"),
        ("SimpleMovingAverage", "sma"),
        ("ExponentialMovingAverage", "ema"),
        ("WeightedMovingAverage", "wma"),
        ("bbands", "bollingerbands"),
        ("ADLineIndicator", "adline"),
        ("DistanceFromMA", "distancefromma"),
        ("SqueezeIntensityIndicator", "squeezeintensity"),
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
        ("distancefromma", {"ma_type": "WMA"}),
        ("rvi", {"period": 3}),
        ("supertrend", {"multiplier": 0}),
        ("vwap", {"period": -1}),
        ("zigzag", {"threshold": 1.0}),
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
