"""A coarser bar is visible only once it has closed."""

from datetime import timedelta

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ktrdr.errors import DataError
from ktrdr.market.alignment import closed_bar_positions
from ktrdr.market.resample import resample
from ktrdr.market.timeframe import Timeframe

HOUR = Timeframe.parse("1h")
DAY = Timeframe.parse("1d")
COARSE = [Timeframe.parse(text) for text in ("1h", "4h", "1d", "1w", "1M")]


def at(*times: str) -> pd.DatetimeIndex:
    return pd.DatetimeIndex(pd.to_datetime(list(times), utc=True))


def positions(base: pd.DatetimeIndex, coarse: pd.DatetimeIndex, timeframe: Timeframe) -> list[int]:
    found = closed_bar_positions(base, HOUR, coarse, timeframe)
    assert found.dtype == np.int64
    return found.tolist()


@st.composite
def opens(draw: st.DrawFn, timeframe: Timeframe) -> pd.DatetimeIndex:
    """Open times on the timeframe's grid, with holes of any size."""
    grid = pd.date_range("2017-01-01", "2017-05-01", freq="h", tz="UTC", unit="us")
    starts = timeframe.period_starts(grid.asi8)
    distinct = np.unique(starts)
    kept = draw(st.lists(st.sampled_from(distinct.tolist()), unique=True, max_size=60))
    return pd.DatetimeIndex(np.array(sorted(kept), "M8[us]")).tz_localize("UTC")


def test_a_day_is_known_to_its_last_hour_and_not_before() -> None:
    base = at("2017-01-03 21:00", "2017-01-03 22:00", "2017-01-03 23:00", "2017-01-04 00:00")
    assert positions(base, at("2017-01-02", "2017-01-03"), DAY) == [0, 0, 1, 1]


def test_nothing_is_known_before_the_first_close() -> None:
    assert positions(at("2017-01-02 05:00"), at("2017-01-02"), DAY) == [-1]
    assert positions(at("2017-01-02 05:00"), at(), DAY) == [-1]


def test_the_same_timeframe_is_known_at_once() -> None:
    times = at("2017-01-02 05:00", "2017-01-02 06:00")
    assert positions(times, times, HOUR) == [0, 1]


def test_over_a_weekend_friday_stays_the_last() -> None:
    friday_and_monday = at("2017-01-06", "2017-01-09")
    base = at(
        "2017-01-06 22:00", "2017-01-06 23:00", "2017-01-08 22:00", "2017-01-09 22:00", "2017-01-09 23:00"
    )
    assert positions(base, friday_and_monday, DAY) == [-1, 0, 0, 0, 1]


def test_a_month_is_known_when_the_calendar_says_so() -> None:
    month = Timeframe.parse("1M")
    base = at("2017-02-28 22:00", "2017-02-28 23:00")
    assert positions(base, at("2017-01-01", "2017-02-01"), month) == [0, 1]


def test_no_bars_give_no_positions() -> None:
    assert positions(at(), at("2017-01-02"), DAY) == []


def test_indexes_of_different_resolution_are_compared_as_times() -> None:
    base = at("2017-01-02 23:00").as_unit("ns")
    assert positions(base, at("2017-01-02").as_unit("s"), DAY) == [0]


def test_times_without_a_zone_are_refused() -> None:
    naive = pd.DatetimeIndex(["2017-01-02"])
    with pytest.raises(DataError, match="must have a time zone"):
        closed_bar_positions(naive, HOUR, at("2017-01-02"), DAY)
    with pytest.raises(DataError, match="must have a time zone"):
        closed_bar_positions(at("2017-01-02"), HOUR, naive, DAY)


@given(data=st.data(), timeframe=st.sampled_from(COARSE))
def test_positions_equal_the_brute_force(data: st.DataObject, timeframe: Timeframe) -> None:
    base, coarse = data.draw(opens(HOUR)), data.draw(opens(timeframe))

    def close(opened: pd.Timestamp) -> pd.Timestamp:
        return opened + (pd.DateOffset(months=1) if str(timeframe) == "1M" else timeframe.duration)

    expected = [
        max((i for i, opened in enumerate(coarse) if close(opened) <= time + timedelta(hours=1)), default=-1)
        for time in base
    ]
    assert positions(base, coarse, timeframe) == expected


@given(data=st.data(), timeframe=st.sampled_from(COARSE))
def test_the_future_changes_nothing_before(data: st.DataObject, timeframe: Timeframe) -> None:
    base, coarse = data.draw(opens(HOUR)), data.draw(opens(timeframe))
    cut = data.draw(st.integers(0, len(base)))
    now = base[cut - 1] + timedelta(hours=1) if cut else pd.Timestamp("2016-01-01", tz="UTC")
    known = coarse[timeframe.close_times(coarse) <= now]
    # Another future: bars that open or close later, in place of those that came.
    other = data.draw(opens(timeframe))
    other = other[timeframe.close_times(other) > now]
    rewritten = known.append(other[other > known[-1]] if len(known) else other)

    whole = positions(base, coarse, timeframe)
    assert positions(base[:cut], known, timeframe) == whole[:cut]
    assert positions(base[:cut], rewritten, timeframe) == whole[:cut]


def test_real_bars_never_see_an_unfinished_day(eurusd: pd.DataFrame) -> None:
    days = resample(eurusd, HOUR, DAY)
    found = closed_bar_positions(pd.DatetimeIndex(eurusd.index), HOUR, pd.DatetimeIndex(days.index), DAY)
    known = found >= 0
    closes = eurusd.index[known] + timedelta(hours=1)
    assert (days.index[found[known]] + timedelta(days=1) <= closes).all()
    # And never an older one than need be: the next day closes later.
    following = found[known] + 1
    some = following < len(days)
    assert (days.index[following[some]] + timedelta(days=1) > closes[some]).all()
