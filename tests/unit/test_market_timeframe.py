"""Timeframes: parsing, order, where periods begin and bars close."""

from datetime import timedelta

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ktrdr.errors import DataError
from ktrdr.market.timeframe import Timeframe, Unit
from ktrdr.market.times import to_index, to_microseconds

timeframes = st.builds(Timeframe, st.integers(1, 60), st.sampled_from(Unit))
moments = st.integers(-(10**15), 4 * 10**15)  # microseconds: 1938 to 2096


def at(*times: str) -> pd.DatetimeIndex:
    return pd.DatetimeIndex(pd.to_datetime(list(times), utc=True))


def period_starts(timeframe: str, *times: str) -> list[str]:
    starts = Timeframe.parse(timeframe).period_starts(to_microseconds(at(*times)))
    return [f"{time:%Y-%m-%d %H:%M}" for time in to_index(starts)]


@pytest.mark.parametrize("text", ["1m", "5m", "15m", "1h", "4h", "1d", "1w", "1M", "9999M"])
def test_a_timeframe_reads_back_as_it_is_written(text: str) -> None:
    assert str(Timeframe.parse(text)) == text


@pytest.mark.parametrize(
    "text",
    ["", "h", "0h", "01h", "1", "1x", "-1h", "1.5h", "10000m", "1 h", "1hh", " 1h", "1h\n", "١h", "1min"],
)
def test_what_is_not_a_timeframe_is_refused(text: str) -> None:
    with pytest.raises(DataError, match="is not a timeframe"):
        Timeframe.parse(text)


@pytest.mark.parametrize(("text", "meant"), [("1H", "1h"), ("1D", "1d"), ("4W", "4w")])
def test_a_letter_in_the_wrong_case_gets_a_hint(text: str, meant: str) -> None:
    with pytest.raises(DataError, match=f"Did you mean '{meant}'"):
        Timeframe.parse(text)


def test_a_count_out_of_range_is_refused() -> None:
    with pytest.raises(ValueError, match="1 to 9999"):
        Timeframe(0, Unit.HOUR)


def test_timeframes_are_ordered_by_length() -> None:
    texts = ["1M", "90m", "4h", "1w", "1m", "1d", "1h", "30m"]
    ordered = [str(timeframe) for timeframe in sorted(map(Timeframe.parse, texts))]
    assert ordered == ["1m", "30m", "1h", "90m", "4h", "1d", "1w", "1M"]


def test_an_hour_is_as_long_as_sixty_minutes() -> None:
    hour, minutes = Timeframe.parse("1h"), Timeframe.parse("60m")
    assert hour.duration == minutes.duration == timedelta(hours=1)
    assert not hour < minutes
    assert not minutes < hour


@pytest.mark.parametrize(
    ("coarse", "fine", "expected"),
    [
        ("4h", "1h", True),
        ("1h", "1h", True),
        ("1h", "60m", True),
        ("1h", "4h", False),
        ("1h", "7m", False),
        ("1d", "7h", False),
        ("1d", "6h", True),
        ("1w", "1d", True),
        ("1w", "4h", True),
        ("1w", "2d", False),
        ("1w", "7h", False),  # a week has 24 of them, but they do not begin on Mondays
        ("7d", "1w", False),
        ("1w", "7d", False),
        ("2w", "1w", True),
        ("1M", "1d", True),
        ("1M", "1w", False),
        ("1M", "15m", True),
        ("3M", "1M", True),
        ("3M", "2M", False),
        ("1w", "1M", False),
        ("60d", "1M", False),
    ],
)
def test_a_multiple_is_made_of_whole_finer_periods(coarse: str, fine: str, expected: bool) -> None:
    assert Timeframe.parse(coarse).is_multiple_of(Timeframe.parse(fine)) is expected


@given(coarse=timeframes, fine=timeframes, moment=moments)
def test_every_period_of_a_multiple_begins_with_a_finer_one(
    coarse: Timeframe, fine: Timeframe, moment: int
) -> None:
    start = coarse.period_starts(np.array([moment], np.int64))
    if coarse.is_multiple_of(fine):
        assert fine.period_starts(start) == start


@given(timeframe=timeframes, moment=moments)
def test_every_moment_lies_in_its_period(timeframe: Timeframe, moment: int) -> None:
    start = timeframe.period_starts(np.array([moment], np.int64))
    end = timeframe.close_microseconds(start)
    assert start[0] <= moment < end[0]
    assert timeframe.period_starts(end) == end


def test_periods_are_anchored_in_utc() -> None:
    assert period_starts("4h", "2017-03-05 22:10", "2017-03-05 20:00") == ["2017-03-05 20:00"] * 2
    assert period_starts("1d", "2017-03-05 23:59", "2017-03-06 00:00") == [
        "2017-03-05 00:00",
        "2017-03-06 00:00",
    ]


def test_weeks_begin_on_monday() -> None:
    sunday, monday = "2017-03-05 22:00", "2017-03-06 00:00"
    assert period_starts("1w", sunday, monday) == ["2017-02-27 00:00", "2017-03-06 00:00"]


def test_months_and_quarters_are_those_of_the_calendar() -> None:
    assert period_starts("1M", "2016-02-29 12:00", "1969-12-31 23:00") == [
        "2016-02-01 00:00",
        "1969-12-01 00:00",
    ]
    assert period_starts("3M", "2017-03-31 12:00", "2017-04-01 00:00") == [
        "2017-01-01 00:00",
        "2017-04-01 00:00",
    ]


@pytest.mark.parametrize(
    ("timeframe", "opened", "closed"),
    [
        ("5m", "2017-01-01 22:00", "2017-01-01 22:05"),
        ("1h", "2017-03-26 01:00", "2017-03-26 02:00"),
        ("1d", "2017-12-31 00:00", "2018-01-01 00:00"),
        ("1w", "2017-01-02 00:00", "2017-01-09 00:00"),
        ("1M", "2016-02-01 00:00", "2016-03-01 00:00"),
        ("1M", "2017-12-01 05:30", "2018-01-01 05:30"),
        ("3M", "2017-01-01 00:00", "2017-04-01 00:00"),
        ("1M", "2017-01-31 00:00", "2017-03-03 00:00"),
    ],
)
def test_a_bar_closes_one_timeframe_after_it_opened(timeframe: str, opened: str, closed: str) -> None:
    closes = Timeframe.parse(timeframe).close_times(at(opened))
    assert list(closes) == list(at(closed))


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_closes_do_not_depend_on_the_resolution_of_the_index(unit: str) -> None:
    opens = at("2017-01-01 22:00", "2017-01-01 23:00").as_unit(unit)
    assert list(Timeframe.parse("1h").close_times(opens)) == list(at("2017-01-01 23:00", "2017-01-02 00:00"))


def test_closes_of_another_time_zone_are_the_same_moments() -> None:
    opens = at("2017-01-01 22:00").tz_convert("America/New_York")
    assert list(Timeframe.parse("1h").close_times(opens)) == list(at("2017-01-01 23:00"))


def test_times_without_a_zone_are_refused() -> None:
    with pytest.raises(DataError, match="must have a time zone"):
        Timeframe.parse("1h").close_times(pd.DatetimeIndex(["2017-01-01 22:00"]))
