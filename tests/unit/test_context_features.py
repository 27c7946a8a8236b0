"""Features of context: computed on the rows of the series, and seen from when those were known."""

from collections.abc import Callable, Mapping

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ktrdr.errors import DataError
from ktrdr.features.compute import FeatureMatrix, compute_features, compute_indicators
from ktrdr.features.indicators import INDICATORS, Indicator
from ktrdr.features.memberships import Triangular
from ktrdr.features.plan import FeatureColumn, FeaturePlan
from ktrdr.market.context.series import ContextTable, needed_rows, plain_series
from ktrdr.market.resample import resample
from ktrdr.market.timeframe import Timeframe
from ktrdr.market.times import to_microseconds
from tests.unit.context_cases import closes, known, when

MakeBars = Callable[..., pd.DataFrame]

HOUR = 3_600_000_000


def indicator(name: str, **parameters: object) -> Indicator:
    return INDICATORS.get(name).model_validate(parameters)


VALUE = indicator("sma", period=2)
"""The mean of two rows: the shortest there is."""


def on(source: str, *timeframes: str, made: Indicator = VALUE, membership: bool = False) -> FeaturePlan:
    """Return a plan with one feature of a context series on each timeframe; the first is the base."""
    term = Triangular(a=0, b=50, c=100) if membership else None
    columns = tuple(FeatureColumn(f"{tf}_x_raw", tf, "x", "", membership=term) for tf in timeframes)
    return FeaturePlan(timeframes[0], {"x": made}, columns, {"x": source})


def features(
    plan: FeaturePlan, bars: Mapping[str, pd.DataFrame], context: Mapping[str, ContextTable]
) -> FeatureMatrix:
    values = compute_indicators(plan, bars, lambda: None, context)
    return compute_features(plan, values, bars, lambda: None, context)


def at(matrix: FeatureMatrix, opens: str, column: int = 0) -> float:
    return float(matrix.values[matrix.times.get_loc(pd.Timestamp(opens, tz="UTC")), column])


def test_an_indicator_of_a_daily_series_counts_days_though_the_bars_are_hours(random_bars: MakeBars) -> None:
    bars, days = random_bars(24 * 40), random_bars(40, seed=1, freq="1D")
    rsi = indicator("rsi", period=14)
    matrix = features(on("D", "1h", made=rsi), {"1h": bars}, {"D": days})
    expected = rsi.compute(days)[""].astype(np.float32)
    assert matrix.feature_ids == ("1h_x_raw",)
    # Day n is known from midnight on, so first to the hour that closes then.
    np.testing.assert_array_equal(matrix.values[23::24, 0], np.append(expected[1:], expected[-1]))
    np.testing.assert_array_equal(matrix.values[0::24, 0], expected)


def test_a_row_is_seen_by_the_bar_that_closes_when_it_becomes_known_and_not_before(
    random_bars: MakeBars,
) -> None:
    table = known(["2020-01-01 00:00", "2020-01-01 05:00", "2020-01-01 07:30"], [10, 20, 40])
    matrix = features(on("S", "1h"), {"1h": random_bars(12)}, {"S": table})
    assert np.isnan(at(matrix, "2020-01-01 03:00"))  # the mean of two is not there yet
    assert at(matrix, "2020-01-01 04:00") == 15.0  # closes at 05:00
    assert at(matrix, "2020-01-01 06:00") == 15.0  # closes at 07:00
    assert at(matrix, "2020-01-01 07:00") == 30.0
    assert at(matrix, "2020-01-01 11:00") == 30.0


def test_the_last_row_stays_the_last_over_weekends_and_holes(random_bars: MakeBars) -> None:
    bars = random_bars(24 * 7)
    weekdays = bars[bars.index.day_of_week < 5]
    table = known(["2020-01-01 00:00", "2020-01-02 00:00", "2020-01-04 12:00"], [10, 20, 40])
    matrix = features(on("S", "1h"), {"1h": weekdays}, {"S": table})
    assert at(matrix, "2020-01-03 23:00") == 15.0  # Friday
    assert at(matrix, "2020-01-06 00:00") == 30.0  # Monday sees what Saturday brought


def test_on_a_coarser_timeframe_it_is_seen_by_the_bar_that_has_closed(random_bars: MakeBars) -> None:
    bars = random_bars(24)
    coarse = resample(bars, Timeframe.parse("1h"), Timeframe.parse("4h"))
    table = known(["2020-01-01 00:00", "2020-01-01 02:00", "2020-01-01 06:00"], [10, 20, 40])
    matrix = features(on("S", "1h", "4h"), {"1h": bars, "4h": coarse}, {"S": table})
    hours = [at(matrix, f"2020-01-01 {hour:02}:00") for hour in range(8)]
    fours = [at(matrix, f"2020-01-01 {hour:02}:00", 1) for hour in range(8)]
    np.testing.assert_equal(hours, [np.nan, 15, 15, 15, 15, 30, 30, 30])
    np.testing.assert_equal(fours, [np.nan, np.nan, np.nan, 15, 15, 15, 15, 30])


def test_memberships_are_those_of_the_row_that_is_seen(random_bars: MakeBars) -> None:
    table = known(["2020-01-01 01:00", "2020-01-01 02:00"], [10, 40])
    matrix = features(on("S", "1h", membership=True), {"1h": random_bars(4)}, {"S": table})
    np.testing.assert_equal(matrix.values[:, 0], np.array([np.nan, 0.5, 0.5, 0.5], np.float32))


def test_an_indicator_of_bars_stays_one_beside_one_of_context(random_bars: MakeBars) -> None:
    bars = random_bars(50)
    columns = (FeatureColumn("1h_x_raw", "1h", "x", ""), FeatureColumn("1h_y_raw", "1h", "y", ""))
    plan = FeaturePlan("1h", {"x": VALUE, "y": VALUE}, columns, {"x": "S"})
    matrix = features(plan, {"1h": bars}, {"S": known(["2019-01-01", "2019-01-02"], [1, 3])})
    assert set(matrix.values[:, 0]) == {2.0}
    np.testing.assert_array_equal(matrix.values[:, 1], VALUE.compute(bars)[""].astype(np.float32))


times_of_rows = st.lists(st.integers(-40, 120), min_size=3, max_size=30, unique=True).map(sorted)
"""In half hours from the first bar."""


@given(times_of_rows, st.integers(1, 47), st.randoms(use_true_random=False))
def test_what_is_not_yet_published_changes_nothing(
    random_bars: MakeBars, rows: list[int], bar: int, random: "np.random.Generator"
) -> None:
    bars = random_bars(48)
    coarse = resample(bars, Timeframe.parse("1h"), Timeframe.parse("4h"))
    plan = on("S", "1h", "4h", made=indicator("ema", period=2))
    start = int(to_microseconds(bars.index)[0])
    known_at = np.array(rows, np.int64) * (HOUR // 2) + start
    values = np.array([random.random() for _ in rows])
    before = features(plan, {"1h": bars, "4h": coarse}, {"S": plain_series(known_at, values)}).values[:bar]

    now = start + bar * HOUR  # when the last of those bars closes
    future = known_at > now
    scrambled = np.where(future, [random.uniform(-1e6, 1e6) for _ in rows], values)
    after = features(plan, {"1h": bars, "4h": coarse}, {"S": plain_series(known_at, scrambled)}).values[:bar]
    np.testing.assert_array_equal(before, after)

    if (~future).sum() > 2:
        cut = plain_series(known_at[~future], values[~future])
        truncated = features(plan, {"1h": bars, "4h": coarse}, {"S": cut}).values[:bar]
        np.testing.assert_array_equal(before, truncated)


@given(times_of_rows, st.integers(-30, 90), st.integers(0, 60), st.integers(0, 5))
def test_the_rows_that_are_taken_along_are_those_that_the_bars_can_see_and_some_before(
    rows: list[int], first: int, length: int, before: int
) -> None:
    last = first + length
    table = plain_series(np.array(rows, np.int64), np.array(rows, np.float64))
    taken = closes(needed_rows(table, first, last, before))
    seen_first = [row for row in rows if row <= first]
    within = [row for row in rows if first < row <= last]
    assert taken == [*seen_first[-(before + 1) :], *within]


def test_a_series_that_is_missing_or_too_short_or_not_finite_is_refused(random_bars: MakeBars) -> None:
    bars = {"1h": random_bars(10)}
    with pytest.raises(DataError, match="There is no context 'S', which the strategy's features need"):
        features(on("S", "1h"), bars, {})
    with pytest.raises(DataError, match="'x' needs at least 2 rows of S, but there are 1"):
        features(on("S", "1h"), bars, {"S": known(["2020-01-01"], [1])})
    with pytest.raises(DataError, match=r"The row of S of 2020-01-02T00:00:00\+00:00 has a open that is not"):
        features(on("S", "1h"), bars, {"S": known(["2020-01-01", "2020-01-02"], [1, np.nan])})


def test_times_of_a_series_of_values_never_move_forward() -> None:
    table = plain_series(np.array([5, 5, 5, 6, 20], np.int64), np.arange(5.0))
    assert to_microseconds(table.index).tolist() == [5, 6, 7, 8, 20]
    assert when(table)[0] == "1970-01-01 00:00"
