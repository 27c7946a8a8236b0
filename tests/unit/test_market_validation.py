"""Which bars are refused, and what is reported of those that are not."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ktrdr.errors import DataError
from ktrdr.market.bars import Bars
from ktrdr.market.gaps import LISTED_GAPS, Gap
from ktrdr.market.validation import validate


@pytest.fixture
def bars(eurusd: pd.DataFrame) -> Bars:
    """Two weeks of EUR/USD."""
    return eurusd.iloc[:240].copy()


def flat(opens: pd.DatetimeIndex) -> Bars:
    """Bars that are all alike."""
    return pd.DataFrame(1.0, index=opens, columns=["open", "high", "low", "close", "volume"])


def spaced(freq: str, periods: int = 50, start: str = "2017-01-02") -> Bars:
    return flat(pd.date_range(start, periods=periods, freq=freq, tz="UTC"))


def refusal(bars: Bars, timeframe: str = "1h") -> str:
    with pytest.raises(DataError) as refused:
        validate(bars, timeframe, "the bars")
    return str(refused.value)


# --- tables that are not bars ---------------------------------------------------------------------


def test_other_columns_are_refused(bars: Bars) -> None:
    assert "the columns of bars are open, high, low, close, volume, not open, high, low, close" in refusal(
        bars.drop(columns="volume")
    )


def test_other_types_are_refused(bars: Bars) -> None:
    assert "must be float64, but close is float32, volume is object" in refusal(
        bars.assign(close=bars["close"].astype("float32"), volume=bars["volume"].astype(object))
    )


def test_an_index_that_is_no_time_or_has_no_zone_is_refused(bars: Bars) -> None:
    assert "indexed by their open times in UTC" in refusal(bars.reset_index(drop=True))
    assert "indexed by their open times in UTC" in refusal(bars.tz_localize(None))


def test_no_bars_are_refused(bars: Bars) -> None:
    assert "there are no bars" in refusal(bars.iloc[:0])


# --- bars that are wrong --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("column", "value", "problem"),
    [
        ("open", np.nan, "missing or infinite values: row 8 (open nan)"),
        ("close", np.inf, "missing or infinite values: row 8 (close inf)"),
        ("low", -np.inf, "missing or infinite values: row 8 (low -inf)"),
        ("volume", np.nan, "missing or infinite values: row 8 (volume nan)"),
        ("low", 0.0, "prices of zero or less: row 8 (low 0)"),
        ("low", -1.0, "prices of zero or less: row 8 (low -1)"),
        ("high", 1.0, "high below another price: row 8 (high 1, open 1.0"),
        ("low", 2.0, "high below another price: row 8 (high 1.0"),
        ("volume", -1.0, "negative volume: row 8 (volume -1)"),
    ],
)
def test_a_wrong_value_is_refused_once_with_its_row(
    bars: Bars, column: str, value: float, problem: str
) -> None:
    bars.iloc[7, bars.columns.get_loc(column)] = value
    message = refusal(bars)
    assert "the bars has a problem:" in message
    assert problem in message


def test_a_bar_with_high_below_low_is_refused(bars: Bars) -> None:
    bars.iloc[3, [1, 2]] = bars.iloc[3, [2, 1]].to_numpy()
    message = refusal(bars)
    assert "high below another price: row 4" in message
    assert "low above" not in message


def test_a_low_above_another_price_is_refused(bars: Bars) -> None:
    bars.iloc[3] = [1.0, 1.2, 1.1, 1.15, 10.0]
    assert "low above another price: row 4 (low 1.1, open 1)" in refusal(bars)


def test_prices_at_the_high_and_the_low_are_right(bars: Bars) -> None:
    validate(spaced("1h"), "1h", "flat bars")


def test_times_out_of_order_are_refused_and_named(bars: Bars) -> None:
    message = refusal(bars.iloc[[*range(10), 11, 10, *range(12, 240)]])
    assert "times out of order: row 12 (2017-01-02 08:00 comes after 2017-01-02 09:00)" in message


def test_doubles_are_refused_even_when_they_are_identical(bars: Bars) -> None:
    message = refusal(bars.iloc[[*range(11), 10, *range(11, 240)]])
    assert "double times: row 12 (2017-01-02 08:00 is on row 11 too, with the same values)" in message


def test_doubles_with_other_values_are_told_apart(bars: Bars) -> None:
    double = bars.iloc[[*range(11), 10, *range(11, 240)]].copy()
    double.iloc[11, 4] = 1.0
    assert "row 12 (2017-01-02 08:00 is on row 11 too, with other values)" in refusal(double)


def test_doubles_far_apart_are_found(bars: Bars) -> None:
    message = refusal(bars.iloc[[*range(240), 5]])
    assert "double times: row 241 (2017-01-02 03:00 is on row 6 too, with the same values)" in message
    assert "has a problem:" in message


def test_missing_times_are_refused(bars: Bars) -> None:
    index = bars.index.to_series()
    index.iloc[4] = pd.NaT
    assert "missing times: row 5 (no time)" in refusal(bars.set_axis(pd.DatetimeIndex(index)))


@pytest.mark.parametrize("year", ["1000", "2400"])
def test_times_that_nanoseconds_cannot_hold_are_refused(year: str) -> None:
    bars = flat(pd.DatetimeIndex(np.array([f"{year}-01-01"], "M8[us]")).tz_localize("UTC"))
    assert f"times outside 1678 to 2261: row 1 ({year}-01-01 00:00)" in refusal(bars)


def test_bars_of_another_timeframe_than_they_are_called_are_refused() -> None:
    message = refusal(spaced("5min"), "1h")
    assert "bars closer together than 1h: row 1 (the next one opens 0 days 00:05:00 later)" in message


def test_a_few_short_bars_are_no_problem() -> None:
    # US shares: the first bar of a session opens at half past, the next one at the full hour.
    days = pd.date_range("2017-01-02", periods=5, freq="D", tz="UTC")
    hours = [14.5, 15, 16, 17, 18, 19, 20]
    opens = pd.DatetimeIndex([day + pd.Timedelta(hours=hour) for day in days for hour in hours])
    report = validate(flat(opens), "1h", "shares")
    assert report.rows == 35


def test_days_and_months_of_a_local_calendar_are_no_problem() -> None:
    days = pd.date_range("2017-03-01", "2017-12-01", freq="D", tz="America/New_York").tz_convert("UTC")
    assert validate(flat(days), "1d", "days").gap_count == 0
    months = pd.date_range("2017-01-01", "2018-12-01", freq="MS", tz="America/New_York").tz_convert("UTC")
    assert validate(flat(months), "1M", "months").gap_count == 0


def test_monthly_bars_stamped_before_their_month_are_refused() -> None:
    months = pd.date_range("2017-01-01", "2017-12-01", freq="MS", tz="Europe/Berlin").tz_convert("UTC")
    assert "monthly bars that open after the 27th: row 1 (2016-12-31 23:00)" in refusal(flat(months), "1M")


def test_every_kind_of_problem_is_in_one_error(bars: Bars) -> None:
    wrong = bars.iloc[[*range(12), 10, *range(11, 240)]].copy()
    wrong.iloc[20, 0] = np.nan
    wrong.iloc[30:40, 4] = -1
    message = refusal(wrong)
    assert "the bars has 13 problems:" in message
    for kind in ("double times", "missing or infinite values", "negative volume"):
        assert kind in message
    assert "row 31 (volume -1), row 32 (volume -1), row 33 (volume -1) and 7 more" in message


@given(st.data())
def test_any_single_corruption_of_a_value_is_refused_with_its_row(data: st.DataObject) -> None:
    table = spaced("1h")
    row, column = data.draw(st.integers(0, 49)), data.draw(st.sampled_from(["open", "high", "low", "close"]))
    worse = {"open": st.floats(1.001, 2), "close": st.floats(1.001, 2), "high": st.floats(0.1, 0.999)}
    value = data.draw(worse.get(column, st.floats(1.001, 2)) | st.sampled_from([np.nan, np.inf, 0.0, -1.0]))
    table.iloc[row, table.columns.get_loc(column)] = value
    assert f"row {row + 1} (" in refusal(table)


# --- gaps are reported, not refused ---------------------------------------------------------------


def test_the_hole_in_the_sample_is_found_among_its_weekends(eurusd: pd.DataFrame) -> None:
    report = validate(eurusd, "1h", "EURUSD_1h.csv")
    assert (report.rows, report.gap_count, report.missing_bars) == (6225, 2, 15)
    assert report.recurring_holes == 50
    assert report.gaps == (
        Gap(datetime(2017, 12, 22, 22, tzinfo=UTC), datetime(2017, 12, 24, 23, tzinfo=UTC), 1),
        Gap(datetime(2017, 12, 25, 8, tzinfo=UTC), datetime(2017, 12, 25, 22, tzinfo=UTC), 14),
    )
    assert report.describe() == (
        "EURUSD_1h.csv: 6,225 bars of 1h from 2017-01-01 22:00 to 2017-12-29 21:00 UTC; "
        "50 recurring holes and 2 gaps where 15 bars should be (most: 14 after 2017-12-25 08:00)"
    )


def test_bars_without_holes_have_none() -> None:
    report = validate(spaced("1h", 500), "1h", "x")
    assert (report.gap_count, report.recurring_holes, report.missing_bars, report.gaps) == (0, 0, 0, ())
    assert report.describe().endswith("; no gaps")


def test_one_bar_is_enough_for_a_report() -> None:
    report = validate(spaced("1h", 1), "1h", "x")
    assert report.describe() == "x: 1 bar of 1h from 2017-01-02 00:00 to 2017-01-02 00:00 UTC; no gaps"


@pytest.mark.parametrize(
    ("freq", "timeframe"),
    [("1min", "1m"), ("4h", "4h"), ("1D", "1d"), ("W-MON", "1w"), ("MS", "1M"), ("5h", "5h")],
)
def test_a_hole_is_counted_in_bars(freq: str, timeframe: str) -> None:
    bars = spaced(freq, 60)
    holed = bars.drop(bars.index[[20, 21, 22]])
    report = validate(holed, timeframe, "x")
    assert (report.gap_count, report.missing_bars) == (1, 3)
    assert report.gaps[0].end == bars.index[23]
    assert report.gaps[0].start == bars.index[20]


def test_a_hole_within_business_days_is_told_from_weekends() -> None:
    opens = pd.bdate_range("2017-01-02", periods=100, tz="UTC")
    report = validate(flat(opens.delete([52])), "1d", "x")
    assert report.recurring_holes == 19
    assert (report.gap_count, report.missing_bars) == (1, 1)


def test_a_hole_that_touches_a_weekend_counts_without_it() -> None:
    opens = pd.bdate_range("2017-01-02", periods=100, tz="UTC")
    friday_and_monday = [54, 55]
    assert opens[54].day_name() == "Friday"
    report = validate(flat(opens.delete(friday_and_monday)), "1d", "x")
    assert (report.gap_count, report.missing_bars) == (1, 2)


def test_a_hole_that_a_clock_change_shortens_is_counted_in_bars() -> None:
    days = pd.date_range("2017-03-01", "2017-03-31", freq="D", tz="America/New_York").tz_convert("UTC")
    # 71 hours from the 11th to the 14th: the clocks go forward on the 12th.
    report = validate(flat(days.delete([11, 12])), "1d", "x")
    assert (report.gap_count, report.missing_bars) == (1, 2)


@pytest.mark.parametrize(
    ("first", "last", "gone"),
    [("2017-01-05", "2017-01-29", "2017-01-16"), ("2017-01-02", "2017-01-26", "2017-01-15")],
)
def test_half_a_week_at_either_end_is_no_closure(first: str, last: str, gone: str) -> None:
    opens = pd.date_range(first, last, tz="UTC")
    report = validate(flat(opens.drop(gone)), "1d", "x")
    assert (report.gap_count, report.missing_bars, report.recurring_holes) == (1, 1, 0)


def test_a_year_without_data_does_not_pass_for_a_closed_market() -> None:
    opens = pd.date_range("2015-01-01", "2017-12-31 23:00", freq="h", tz="UTC")
    opens = opens[opens.year != 2016]
    report = validate(flat(opens), "1h", "x")
    assert (report.gap_count, report.missing_bars, report.recurring_holes) == (1, 366 * 24, 0)


def test_a_single_week_cannot_tell_a_weekend_from_a_gap() -> None:
    opens = pd.DatetimeIndex(
        [*pd.date_range("2017-01-02", periods=5, tz="UTC"), pd.Timestamp("2017-01-09", tz="UTC")]
    )
    report = validate(flat(opens), "1d", "x")
    assert (report.gap_count, report.missing_bars) == (1, 2)


def test_only_the_largest_of_many_gaps_are_listed() -> None:
    opens = pd.date_range("2017-01-02", periods=24 * 7 * 100, freq="h", tz="UTC")
    rng = np.random.default_rng(0)
    gone = rng.choice(len(opens) - 2, 700, replace=False) + 1
    report = validate(flat(opens.delete(gone)), "1h", "x")
    assert report.gap_count > LISTED_GAPS == len(report.gaps)
    assert report.missing_bars == 700
    assert list(report.gaps) == sorted(report.gaps, key=lambda gap: gap.start)
    assert max(gap.missing_bars for gap in report.gaps) > 1


@given(gone=st.sets(st.integers(1, 24 * 28 - 2), max_size=30))
def test_present_and_missing_bars_add_up_without_closures(gone: set[int]) -> None:
    opens = pd.date_range("2017-01-02", periods=24 * 28, freq="h", tz="UTC")
    slots = [hour % 168 for hour in gone]
    report = validate(flat(opens.delete(sorted(gone))), "1h", "x")
    closed = {slot for slot in slots if slots.count(slot) >= 2}
    expected = sum(slot not in closed for slot in slots)
    assert report.missing_bars == expected
    assert sum(gap.missing_bars for gap in report.gaps) == expected
    for gap in report.gaps:
        assert (gap.end - gap.start) / timedelta(hours=1) >= gap.missing_bars
