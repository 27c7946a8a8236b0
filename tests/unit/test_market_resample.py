"""Coarser bars from finer ones."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ktrdr.errors import DataError
from ktrdr.market.bars import BAR_COLUMNS, Bars
from ktrdr.market.columns import make_bars
from ktrdr.market.resample import resample
from ktrdr.market.timeframe import Timeframe
from ktrdr.market.times import to_microseconds

HOUR = Timeframe.parse("1h")
FOUR_HOURS = Timeframe.parse("4h")
DAY = Timeframe.parse("1d")
WEEK = Timeframe.parse("1w")
MONTH = Timeframe.parse("1M")


def bars_at(opens: pd.DatetimeIndex, seed: int = 0) -> Bars:
    rng = np.random.default_rng(seed)
    prices = np.sort(rng.uniform(1, 2, (len(opens), 4)), axis=1)
    return make_bars(
        to_microseconds(opens),
        {
            "open": prices[:, 1],
            "high": prices[:, 3],
            "low": prices[:, 0],
            "close": prices[:, 2],
            "volume": rng.integers(0, 1000, len(opens)).astype(float),
        },
    )


def hourly(start: str, periods: int) -> pd.DatetimeIndex:
    return pd.date_range(start, periods=periods, freq="h", tz="UTC")


@st.composite
def hourly_opens_with_holes(draw: st.DrawFn) -> pd.DatetimeIndex:
    start = draw(st.integers(0, 24 * 14))
    present = draw(st.lists(st.booleans(), min_size=1, max_size=24 * 10))
    hours = start + np.flatnonzero([*present, True])
    return pd.DatetimeIndex(pd.Timestamp("2017-02-20", tz="UTC") + pd.to_timedelta(hours, unit="h"))


def test_a_bar_takes_the_first_open_and_last_close_and_the_extremes_between() -> None:
    bars = make_bars(
        to_microseconds(hourly("2017-01-02 00:00", 4)),
        {
            "open": np.array([10.0, 11.0, 12.0, 9.0]),
            "high": np.array([11.0, 15.0, 12.5, 9.5]),
            "low": np.array([9.5, 10.5, 8.0, 8.5]),
            "close": np.array([11.0, 12.0, 9.0, 9.2]),
            "volume": np.array([1.0, 2.0, 3.0, 4.0]),
        },
    )
    (row,) = resample(bars, HOUR, FOUR_HOURS).itertuples()
    assert row.Index == pd.Timestamp("2017-01-02 00:00", tz="UTC")
    assert (row.open, row.high, row.low, row.close, row.volume) == (10.0, 15.0, 8.0, 9.2, 10.0)


def test_real_bars_agree_with_pandas(eurusd: pd.DataFrame) -> None:
    rules = {"open": "first", "high": "max", "low": "min", "close": "last", "volume": "sum"}
    expected = eurusd.resample("1D").agg(rules).dropna()
    # The data covers neither the first day whole (it begins at 22:00) nor the last one (it ends at 22:00).
    expected = expected.iloc[1:-1]
    pd.testing.assert_frame_equal(resample(eurusd, HOUR, DAY), expected, check_freq=False)


def test_the_last_period_is_left_out_until_the_data_covers_it() -> None:
    opens = hourly("2017-01-02 00:00", 8)
    assert len(resample(bars_at(opens), HOUR, FOUR_HOURS)) == 2
    assert len(resample(bars_at(opens[:-1]), HOUR, FOUR_HOURS)) == 1


def test_the_first_period_is_left_out_when_the_data_begins_within_it() -> None:
    coarse = resample(bars_at(hourly("2017-01-02 01:00", 7)), HOUR, FOUR_HOURS)
    assert list(coarse.index) == [pd.Timestamp("2017-01-02 04:00", tz="UTC")]


def test_a_period_with_a_hole_is_formed_from_what_there_is() -> None:
    opens = hourly("2017-01-02 00:00", 12).delete([4, 5, 6])
    bars = bars_at(opens)
    coarse = resample(bars, HOUR, FOUR_HOURS)
    assert len(coarse) == 3
    assert coarse.iloc[1].tolist() == bars.loc["2017-01-02 07:00+00:00"].tolist()


def test_a_period_without_bars_is_absent() -> None:
    opens = hourly("2017-01-02 00:00", 12).delete([4, 5, 6, 7])
    coarse = resample(bars_at(opens), HOUR, FOUR_HOURS)
    assert [time.hour for time in coarse.index] == [0, 8]


def test_weeks_begin_on_monday_and_months_on_the_first(eurusd: pd.DataFrame) -> None:
    weeks = resample(eurusd, HOUR, WEEK)
    assert set(weeks.index.day_name()) == {"Monday"}
    months = resample(eurusd, HOUR, MONTH)
    assert [(time.month, time.day, time.hour) for time in months.index] == [(m, 1, 0) for m in range(2, 12)]


def test_a_bar_across_an_edge_counts_where_it_closes() -> None:
    # US shares: hourly bars that open at half past; 15:30 to 16:30 is not known at 16:00.
    opens = pd.date_range("2017-01-03 11:30", periods=9, freq="h", tz="UTC")
    bars = bars_at(opens)
    coarse = resample(bars, HOUR, FOUR_HOURS)
    assert list(coarse.index) == [
        pd.Timestamp("2017-01-03 12:00", tz="UTC"),
        pd.Timestamp("2017-01-03 16:00", tz="UTC"),
    ]
    assert coarse["open"].iloc[1] == bars["open"].loc["2017-01-03 15:30+00:00"]
    assert coarse["close"].iloc[0] == bars["close"].loc["2017-01-03 14:30+00:00"]


def test_what_is_not_a_multiple_is_refused() -> None:
    with pytest.raises(DataError, match="Bars of 1h cannot be made of bars of 7m"):
        resample(bars_at(hourly("2017-01-02", 3)), Timeframe.parse("7m"), HOUR)


def test_too_little_data_makes_no_bars() -> None:
    bars = bars_at(hourly("2017-01-02 00:00", 3))
    coarse = resample(bars, HOUR, FOUR_HOURS)
    assert len(coarse) == 0
    assert tuple(coarse.columns) == BAR_COLUMNS
    assert len(resample(bars.iloc[:0], HOUR, FOUR_HOURS)) == 0


@given(opens=hourly_opens_with_holes(), coarse=st.sampled_from([FOUR_HOURS, DAY, WEEK]), data=st.data())
def test_the_future_changes_no_finished_bar(
    opens: pd.DatetimeIndex, coarse: Timeframe, data: st.DataObject
) -> None:
    bars = bars_at(opens)
    cut = data.draw(st.integers(0, len(bars)))
    past = resample(bars.iloc[:cut], HOUR, coarse)
    scrambled = bars.copy()
    scrambled.iloc[cut:] = bars_at(opens[cut:], seed=1).to_numpy()
    for whole in (resample(bars, HOUR, coarse), resample(scrambled, HOUR, coarse)):
        pd.testing.assert_frame_equal(whole.iloc[: len(past)], past)


@given(opens=hourly_opens_with_holes())
def test_each_bar_equals_the_brute_force_over_its_period(opens: pd.DatetimeIndex) -> None:
    bars = bars_at(opens)
    coarse = resample(bars, HOUR, FOUR_HOURS)
    length = pd.Timedelta(hours=4)
    for start in pd.date_range(opens[0].floor("4h"), opens[-1], freq="4h"):
        inside = bars[(bars.index >= start) & (bars.index < start + length)]
        covered = opens[0] <= start and start + length <= opens[-1] + pd.Timedelta(hours=1)
        assert (start in coarse.index) == (covered and not inside.empty)
        if start in coarse.index:
            expected = [
                inside["open"].iloc[0],
                inside["high"].max(),
                inside["low"].min(),
                inside["close"].iloc[-1],
                inside["volume"].sum(),
            ]
            assert coarse.loc[start].tolist() == expected


@given(opens=hourly_opens_with_holes())
def test_two_steps_make_the_same_bars_as_one(opens: pd.DatetimeIndex) -> None:
    bars = bars_at(opens)
    once = resample(bars, HOUR, DAY)
    twice = resample(resample(bars, HOUR, FOUR_HOURS), FOUR_HOURS, DAY)
    common = twice.index.intersection(once.index)
    pd.testing.assert_frame_equal(once.loc[common], twice.loc[common])
