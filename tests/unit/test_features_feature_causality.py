"""No feature of any indicator, on any timeframe or series, sees what is not known yet."""

from collections.abc import Callable, Mapping

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ktrdr.errors import DataError
from ktrdr.features.feature_causality import feature_leaks
from ktrdr.features.indicators import INDICATORS, Indicator
from ktrdr.features.memberships import Gaussian, Trapezoidal, Triangular
from ktrdr.features.plan import FeatureColumn, FeaturePlan
from ktrdr.market.resample import resample
from ktrdr.market.timeframe import Timeframe

MakeBars = Callable[..., pd.DataFrame]


def go_on() -> None:
    """A check that never stops anything."""


def raw(timeframe: str, indicator_id: str, output: str = "") -> FeatureColumn:
    reference = f"{indicator_id}.{output}" if output else indicator_id
    return FeatureColumn(f"{timeframe}_{reference}_raw", timeframe, indicator_id, output)


def with_four_hours(hours: pd.DataFrame) -> dict[str, pd.DataFrame]:
    return {"1h": hours, "4h": resample(hours, Timeframe.parse("1h"), Timeframe.parse("4h"))}


def everything() -> FeaturePlan:
    """Every output of every indicator, raw and by each membership, on two timeframes."""
    indicators = {name: kind() for name, kind in INDICATORS}
    shapes = (Triangular(a=0, b=50, c=100), Trapezoidal(a=-1, b=0, c=1, d=90), Gaussian(mu=0, sigma=1))
    columns = []
    for timeframe in ("1h", "4h"):
        for name, indicator in indicators.items():
            for output in indicator.outputs or ("",):
                columns.append(raw(timeframe, name, output))
                for shape in shapes:
                    kind = type(shape).__name__.lower()
                    feature_id = f"{timeframe}_{name}_{output}_{kind}"
                    columns.append(FeatureColumn(feature_id, timeframe, name, output, name, kind, shape))
    return FeaturePlan("1h", indicators, tuple(columns))


@settings(max_examples=3)
@given(seed=st.integers(0, 2**32 - 1))
def test_no_feature_of_any_indicator_looks_ahead(random_bars: MakeBars, seed: int) -> None:
    bars = with_four_hours(random_bars(480, seed=seed))
    assert feature_leaks(everything(), bars, {}, go_on, seed=seed, count=4, tolerance=0) == ()


def test_neither_does_one_on_a_series_beside_the_bars(random_bars: MakeBars) -> None:
    bars, days = random_bars(300), random_bars(40, freq="7h", seed=5)
    plan = FeaturePlan(
        "1h",
        {"fast": INDICATORS.get("rsi")(period=3), "rate": INDICATORS.get("momentum")(period=2)},
        (raw("1h", "fast"), raw("1h", "rate")),
        {"rate": "yield"},
    )
    assert feature_leaks(plan, {"1h": bars}, {"yield": days}, go_on, tolerance=0) == ()


class Peeking(Indicator):
    """The next close; at the last bar, its own."""

    @property
    def warmup_bars(self) -> int:
        return 0

    def compute(self, bars: pd.DataFrame) -> Mapping[str, np.ndarray]:
        return {"": bars["close"].shift(-1).fillna(bars["close"]).to_numpy()}


def test_the_feature_that_looks_ahead_is_caught_among_others(random_bars: MakeBars) -> None:
    bars = with_four_hours(random_bars(300))
    plan = FeaturePlan(
        "1h",
        {"ahead": Peeking(), "rsi": INDICATORS.get("rsi")()},
        (raw("1h", "rsi"), raw("4h", "ahead"), raw("4h", "rsi"), raw("1h", "ahead")),
    )
    leaks = {leak.output: leak for leak in feature_leaks(plan, bars, {}, go_on)}
    assert set(leaks) == {"4h_ahead_raw", "1h_ahead_raw"}
    assert leaks["1h_ahead_raw"].reach_bars == 1
    assert leaks["4h_ahead_raw"].reach_bars <= 4


def test_an_indicator_of_a_series_that_looks_ahead_is_caught(random_bars: MakeBars) -> None:
    plan = FeaturePlan("1h", {"ahead": Peeking()}, (raw("1h", "ahead"),), {"ahead": "yield"})
    bars, series = {"1h": random_bars(300)}, {"yield": random_bars(40, freq="7h", seed=5)}
    assert [leak.output for leak in feature_leaks(plan, bars, series, go_on)] == ["1h_ahead_raw"]


def test_too_few_bars_to_leave_some_out_are_refused(random_bars: MakeBars) -> None:
    plan = FeaturePlan("1h", {"rsi": INDICATORS.get("rsi")()}, (raw("1h", "rsi"),))
    with pytest.raises(DataError, match="15 bars of 1h are too few to leave some out: the features need 15"):
        feature_leaks(plan, {"1h": random_bars(15)}, {}, go_on)
