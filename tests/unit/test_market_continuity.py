"""A hole is what no night, weekend or holiday explains."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ktrdr.market.continuity import holes_before
from ktrdr.market.timeframe import Timeframe
from ktrdr.market.times import to_microseconds


def found(opens: pd.DatetimeIndex, timeframe: str) -> list[int]:
    return np.flatnonzero(holes_before(to_microseconds(opens), Timeframe.parse(timeframe))).tolist()


def at(*times: str) -> pd.DatetimeIndex:
    return pd.DatetimeIndex(pd.to_datetime(list(times), utc=True))


def test_the_bundled_hourly_bars_have_no_hole_over_weekends_and_christmas(eurusd: pd.DataFrame) -> None:
    assert found(pd.DatetimeIndex(eurusd.index), "1h") == []


def test_nights_of_an_exchange_are_no_holes() -> None:
    days = pd.bdate_range("2024-01-01", "2024-03-01", tz="UTC")
    opens = pd.DatetimeIndex([day + pd.Timedelta(hours=hour) for day in days for hour in range(14, 21)])
    assert found(opens, "1h") == []


@pytest.mark.parametrize(
    ("before", "after", "timeframe", "is_hole"),
    [
        ("2024-03-28T20:00", "2024-04-02T07:00", "1h", False),  # Easter, Thursday to Tuesday
        ("2024-12-24T12:00", "2024-12-27T07:00", "1h", False),  # Christmas
        ("2024-05-06T10:00", "2024-05-09T11:00", "1h", False),  # three days and no more
        ("2024-05-06T10:00", "2024-05-09T11:01", "1h", True),
        ("2024-05-02T10:00", "2024-05-09T10:00", "1h", True),
        ("2024-05-03T00:00", "2024-05-06T00:00", "1d", False),  # a weekend
        ("2024-05-03T00:00", "2024-05-09T00:00", "1d", False),  # and three days
        ("2024-05-03T00:00", "2024-05-10T00:00", "1d", True),
        ("2024-05-06T00:00", "2024-05-20T00:00", "1w", False),  # one week of bars is absent
        ("2024-05-06T00:00", "2024-06-03T00:00", "1w", True),
        ("2024-01-01T00:00", "2024-02-01T00:00", "1M", False),
        ("2024-01-01T00:00", "2024-05-01T00:00", "1M", True),
    ],
)
def test_three_working_days_are_the_border(before: str, after: str, timeframe: str, *, is_hole: bool) -> None:
    assert found(at(before, after), timeframe) == ([1] if is_hole else [])


@given(st.lists(st.integers(1, 400), min_size=1, max_size=60), st.integers(1, 60))
def test_later_bars_change_no_earlier_hole(hours: list[int], kept: int) -> None:
    opens = pd.Timestamp("2024-01-03", tz="UTC") + pd.to_timedelta(np.cumsum(hours), unit="h")
    assert found(opens[:kept], "1h") == [row for row in found(opens, "1h") if row < kept]


def test_no_bars_and_one_bar_have_no_hole() -> None:
    assert found(at(), "1h") == []
    assert found(at("2024-01-01T00:00"), "1h") == []
