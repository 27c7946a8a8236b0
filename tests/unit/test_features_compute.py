"""The feature stage as a whole: what is computed, when it is known, and which rows are left."""

from collections.abc import Callable, Mapping
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest

from ktrdr.errors import DataError, PluginError
from ktrdr.features.compute import (
    FeatureMatrix,
    Output,
    compute_features,
    compute_indicators,
    drop_warmup,
)
from ktrdr.features.indicators import INDICATORS, Indicator
from ktrdr.features.memberships import Gaussian, Membership, Trapezoidal, Triangular
from ktrdr.features.plan import FeatureColumn, FeaturePlan
from ktrdr.market.resample import resample
from ktrdr.market.timeframe import Timeframe

MakeBars = Callable[..., pd.DataFrame]


class StopError(Exception):
    """Raised by a check, as a cancellation is."""


def go_on() -> None:
    """A check that never stops anything."""


def raw(timeframe: str, indicator_id: str, output: str = "") -> FeatureColumn:
    reference = f"{indicator_id}.{output}" if output else indicator_id
    return FeatureColumn(f"{timeframe}_{reference}_raw", timeframe, indicator_id, output)


def fuzzy(timeframe: str, indicator_id: str, membership: Membership, output: str = "") -> FeatureColumn:
    name = type(membership).__name__.lower()
    feature_id = f"{timeframe}_{indicator_id}_{output}_{name}"
    return FeatureColumn(feature_id, timeframe, indicator_id, output, indicator_id, name, membership)


def features(plan: FeaturePlan, bars: Mapping[str, pd.DataFrame]) -> FeatureMatrix:
    return compute_features(plan, compute_indicators(plan, bars, go_on), bars, go_on)


class Counting(Indicator):
    """The close; counts how often it is computed."""

    computed: ClassVar[list[int]] = []

    @property
    def warmup_bars(self) -> int:
        return 0

    def compute(self, bars: pd.DataFrame) -> Mapping[str, npt.NDArray[np.float64]]:
        self.computed.append(len(bars))
        return {"": bars["close"].to_numpy()}


def test_features_are_the_degrees_of_the_indicators_in_the_order_of_the_plan(eurusd: pd.DataFrame) -> None:
    rsi, macd = INDICATORS.get("rsi")(), INDICATORS.get("macd")()
    low, flat = Triangular(a=0, b=30, c=50), Gaussian(mu=0, sigma=0.001)
    plan = FeaturePlan(
        "1h",
        {"rsi_14": rsi, "macd": macd},
        (fuzzy("1h", "macd", flat, "histogram"), raw("1h", "rsi_14"), fuzzy("1h", "rsi_14", low)),
    )
    matrix = features(plan, {"1h": eurusd})
    assert matrix.values.dtype == np.float32
    assert matrix.values.flags.c_contiguous
    assert matrix.feature_ids == plan.feature_ids
    pd.testing.assert_index_equal(matrix.times, eurusd.index, exact="equiv", check_names=False)
    rsi_values = rsi.compute(eurusd)[""]
    expected = np.column_stack(
        [flat.degree(macd.compute(eurusd)["histogram"]), rsi_values, low.degree(rsi_values)]
    )
    np.testing.assert_array_equal(matrix.values, expected.astype(np.float32))


def test_many_rows_are_computed_as_few_are(random_bars: MakeBars) -> None:
    bars = random_bars(20_000)
    plan = FeaturePlan(
        "1h",
        {"rsi": INDICATORS.get("rsi")()},
        (
            fuzzy("1h", "rsi", Trapezoidal(a=10, b=40, c=60, d=90)),
            fuzzy("1h", "rsi", Gaussian(mu=50, sigma=9)),
        ),
    )
    values = plan.indicators["rsi"].compute(bars)[""]
    expected = np.column_stack([column.membership.degree(values) for column in plan.columns])
    np.testing.assert_array_equal(features(plan, {"1h": bars}).values, expected.astype(np.float32))


def test_each_indicator_is_computed_once_per_timeframe_and_only_where_a_feature_needs_it(
    random_bars: MakeBars,
) -> None:
    hours = random_bars(48)
    bars = {"1h": hours, "4h": resample(hours, Timeframe.parse("1h"), Timeframe.parse("4h"))}
    plan = FeaturePlan(
        "1h",
        {"close": Counting(), "unused": Counting(), "macd": INDICATORS.get("macd")()},
        (
            raw("1h", "close"),
            fuzzy("1h", "close", Triangular(a=0, b=100, c=200)),
            raw("4h", "close"),
            raw("1h", "macd", "signal"),
        ),
    )
    Counting.computed.clear()
    values = compute_indicators(plan, bars, go_on)
    assert sorted(Counting.computed) == [12, 48]
    assert set(values) == {
        Output("1h", "close", ""),
        Output("4h", "close", ""),
        Output("1h", "macd", "signal"),
    }


def test_a_coarser_bar_is_seen_from_the_bar_that_closes_with_it(random_bars: MakeBars) -> None:
    hours = random_bars(13)
    bars = {"1h": hours, "4h": resample(hours, Timeframe.parse("1h"), Timeframe.parse("4h"))}
    plan = FeaturePlan("1h", {"close": Counting()}, (raw("1h", "close"), raw("4h", "close")))
    values = features(plan, bars).values
    closes = hours["close"].to_numpy(np.float32)
    np.testing.assert_array_equal(values[:, 0], closes)
    known = [np.nan] * 3 + [closes[3]] * 4 + [closes[7]] * 4 + [closes[11]] * 2
    np.testing.assert_array_equal(values[:, 1], np.array(known, dtype=np.float32))


def test_degrees_of_a_coarser_timeframe_follow_the_order_of_the_plan(random_bars: MakeBars) -> None:
    hours = random_bars(100)
    bars = {"1h": hours, "1d": resample(hours, Timeframe.parse("1h"), Timeframe.parse("1d"))}
    membership = Triangular(a=50, b=100, c=150)
    plan = FeaturePlan("1h", {"close": Counting()}, (fuzzy("1d", "close", membership), raw("1h", "close")))
    values = features(plan, bars).values
    assert np.isnan(values[:23, 0]).all()
    degrees = membership.degree(bars["1d"]["close"].to_numpy()).astype(np.float32)
    assert values[23, 0] == values[46, 0] == degrees[0]
    assert values[47, 0] == degrees[1]


class Doubled(Counting):
    """Twice the close, or something that is no indicator."""

    result: ClassVar[object] = None

    def compute(self, bars: pd.DataFrame) -> Mapping[str, npt.NDArray[np.float64]]:
        return {"": 2 * bars["close"].to_numpy() if self.result is None else self.result}


@pytest.mark.parametrize("price", [2e38, 1e308])
def test_an_indicator_that_is_more_than_a_feature_can_be_is_an_error(
    price: float, random_bars: MakeBars
) -> None:
    bars = random_bars(30)
    bars.iloc[7, bars.columns.get_loc("close")] = price
    plan = FeaturePlan("1h", {"double": Doubled()}, (raw("1h", "double"),))
    with np.errstate(over="ignore"), pytest.raises(DataError, match=r"'double' is .* at 2020-01-01T07:00"):
        compute_indicators(plan, {"1h": bars}, go_on)


def test_an_indicator_that_breaks_its_contract_is_named(random_bars: MakeBars) -> None:
    class Broken(Doubled):
        result: ClassVar[object] = np.ones(3)

    plan = FeaturePlan("1h", {"broken": Broken()}, (raw("1h", "broken"),))
    with pytest.raises(PluginError, match=r"Broken breaks its contract\. The result is not an array"):
        compute_indicators(plan, {"1h": random_bars(30)}, go_on)


def test_a_check_that_raises_stops_either_step(eurusd: pd.DataFrame) -> None:
    plan = FeaturePlan("1h", {"close": Counting()}, (raw("1h", "close"),))

    def stop() -> None:
        raise StopError

    Counting.computed.clear()
    with pytest.raises(StopError):
        compute_indicators(plan, {"1h": eurusd}, stop)
    assert not Counting.computed
    values = compute_indicators(plan, {"1h": eurusd}, go_on)
    with pytest.raises(StopError):
        compute_features(plan, values, {"1h": eurusd}, stop)


def test_too_few_bars_for_an_indicator_are_refused_with_the_number_needed(eurusd: pd.DataFrame) -> None:
    plan = FeaturePlan("1h", {"adx_14": INDICATORS.get("adx")()}, (raw("1h", "adx_14", "adx"),))
    message = "Indicator 'adx_14' needs at least 28 bars of 1h, but there are 27"
    with pytest.raises(DataError, match=message):
        features(plan, {"1h": eurusd.iloc[:27]})
    assert np.isfinite(features(plan, {"1h": eurusd.iloc[:28]}).values[27]).all()


def test_a_timeframe_without_bars_is_refused(eurusd: pd.DataFrame) -> None:
    plan = FeaturePlan("1h", {"close": Counting()}, (raw("4h", "close"),))
    with pytest.raises(DataError, match="no 4h bars"):
        features(plan, {"1h": eurusd})


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_price_that_is_no_number_is_refused_with_its_time(eurusd: pd.DataFrame, value: float) -> None:
    bars = eurusd.iloc[:100].copy()
    bars.iloc[40, bars.columns.get_loc("high")] = value
    plan = FeaturePlan("1h", {"close": Counting()}, (raw("1h", "close"),))
    with pytest.raises(DataError, match=r"1h bar of 2017-01-03T14:00:00\+00:00 has a high"):
        features(plan, {"1h": bars})


def matrix_of(*columns: list[float]) -> FeatureMatrix:
    values = np.array(columns, dtype=np.float32).T
    times = pd.date_range("2020-01-01", periods=len(values), freq="1h", tz="UTC")
    return FeatureMatrix(times, values, tuple("abc"[: len(columns)]))


nan = float("nan")


def test_the_warm_up_is_dropped_and_counted() -> None:
    matrix = matrix_of([nan, 1, 2, 3], [nan, nan, 5, 6])
    left, dropped = drop_warmup(matrix)
    assert dropped == 2
    assert list(left.times) == list(matrix.times[2:])
    np.testing.assert_array_equal(left.values, [[2, 5], [3, 6]])


def test_a_matrix_without_warm_up_is_left_whole() -> None:
    matrix = matrix_of([1, 2], [3, 4])
    left, dropped = drop_warmup(matrix)
    assert dropped == 0
    np.testing.assert_array_equal(left.values, matrix.values)


def test_a_few_rows_without_a_value_later_are_dropped_and_counted_too() -> None:
    column = [float(number) for number in range(100)]
    column[0] = column[50] = nan
    left, dropped = drop_warmup(matrix_of(column))
    assert dropped == 2
    assert len(left.times) == len(left.values) == 98
    assert not np.isnan(left.values).any()


def test_many_rows_without_a_value_later_are_refused_with_feature_and_time() -> None:
    column = [float(number) for number in range(20)]
    gaps = [*column[:10], nan, *column[11:15], nan, *column[16:]]
    matrix = matrix_of(column, gaps)
    with pytest.raises(
        DataError, match=r"at 2 of the 20 bars after the warm-up; 'b' lacks most, .*2020-01-01T10:00"
    ):
        drop_warmup(matrix)
    _, dropped = drop_warmup(matrix, max_gaps=0.1)
    assert dropped == 2


def test_a_feature_that_never_has_a_value_is_named() -> None:
    with pytest.raises(DataError, match="'b' has one at 0 of 3 bars"):
        drop_warmup(matrix_of([1, 2, 3], [nan, nan, nan]))


def test_no_rows_at_all_are_refused() -> None:
    with pytest.raises(DataError, match="0 of 0 bars"):
        drop_warmup(matrix_of([]))
