"""Windows of consecutive rows."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ktrdr.features.compute import FeatureMatrix
from ktrdr.features.windows import Windows, complete_windows
from ktrdr.market.timeframe import Timeframe

HOUR = Timeframe.parse("1h")


def hours(count: int) -> pd.DatetimeIndex:
    return pd.date_range("2024-01-01", periods=count, freq="h", tz="UTC", unit="us")


def matrix(times: pd.DatetimeIndex) -> FeatureMatrix:
    values = np.arange(2 * len(times), dtype=np.float32).reshape(-1, 2)
    return FeatureMatrix(times, values, ("a", "b"))


def ends(times: pd.DatetimeIndex, opens: pd.DatetimeIndex, length: int) -> list[int]:
    return complete_windows(matrix(times), opens, HOUR, length).tolist()


def test_the_first_rows_have_no_complete_window() -> None:
    assert ends(hours(6), hours(6), 4) == [3, 4, 5]


def test_a_single_row_is_always_complete() -> None:
    assert ends(hours(4)[[0, 3]], hours(4), 1) == [0, 1]


def test_a_window_does_not_go_over_a_bar_that_was_left_out() -> None:
    opens = hours(8)
    assert ends(opens.delete(3), opens, 3) == [2, 5, 6]


def test_a_window_does_not_go_over_a_hole_in_the_data() -> None:
    opens = hours(4).append(hours(4) + pd.Timedelta(days=14))
    assert ends(opens, opens, 3) == [2, 3, 6, 7]


def test_a_window_goes_over_a_weekend() -> None:
    friday = pd.date_range("2024-01-05T18:00", periods=4, freq="h", tz="UTC", unit="us")
    opens = friday.append(friday + pd.Timedelta(days=2, hours=1))
    assert ends(opens, opens, 3) == [2, 3, 4, 5, 6, 7]


def test_fewer_rows_than_a_window_make_none() -> None:
    assert ends(hours(3), hours(3), 4) == []
    assert ends(hours(0), hours(3), 4) == []


def test_the_values_of_a_window_are_its_rows_the_oldest_first() -> None:
    given_rows = matrix(hours(5))
    windows = Windows(given_rows.values, np.array([2, 4]), 3)
    assert windows.values().tolist() == [given_rows.values[0:3].tolist(), given_rows.values[2:5].tolist()]
    assert windows.part(slice(1, 2)).values().tolist() == [given_rows.values[2:5].tolist()]
    assert Windows(given_rows.values, np.array([2]), 1).values().tolist() == [[4, 5]]


@given(
    present=st.sets(st.integers(0, 59), min_size=1),
    holes=st.sets(st.integers(1, 59), max_size=4),
    length=st.integers(2, 9),
)
def test_every_window_is_made_of_neighbouring_bars_and_none_is_missed(
    present: set[int], holes: set[int], length: int
) -> None:
    days_lost = np.cumsum([14 if row in holes else 0 for row in range(60)])
    opens = hours(60) + pd.to_timedelta(days_lost, unit="D")
    kept = sorted(present)
    expected = [
        position
        for position, bar in enumerate(kept)
        if all(bar - back in present for back in range(length))
        and not any(row in holes for row in range(bar - length + 2, bar + 1))
    ]
    assert ends(opens[kept], opens, length) == expected


@pytest.mark.parametrize("length", [1, 3])
def test_nothing_is_copied_until_values_are_asked_for(length: int) -> None:
    table = matrix(hours(5)).values
    windows = Windows(table, np.array([3, 4]), length)
    table[:] = 7
    assert np.all(windows.values() == 7)
