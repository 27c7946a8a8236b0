"""Context from files: what a row says, and since when it is known."""

from pathlib import Path

import pytest

from ktrdr.errors import DataError
from ktrdr.market.context import CotContext, FredContext, SymbolContext, read_context
from ktrdr.market.context.series import ContextSeries
from tests.unit.context_cases import closes, when, write


def fred(directory: Path, name: str, *lines: str) -> Path:
    return write(directory / "fred" / f"{name}.csv", *lines)


def read(directory: Path, lag: str | None = None, name: str = "R") -> ContextSeries:
    return FredContext((name,), lag).read(f"fred_{name}", directory)


def refused(directory: Path, lag: str | None = None) -> str:
    with pytest.raises(DataError) as caught:
        read(directory, lag)
    return str(caught.value)


# --- when a row is known


def test_a_value_is_known_when_the_file_says_that_it_was_published(tmp_path: Path) -> None:
    fred(
        tmp_path,
        "R",
        "date,value,published",
        "2024-01-02,1.5,2024-01-03T16:15-05:00",
        "2024-01-03,-2,2024-01-04 21:15",
    )
    table = read(tmp_path).table
    assert when(table) == ["2024-01-03 21:15", "2024-01-04 21:15"]
    assert closes(table) == [1.5, -2.0]
    assert table["high"].equals(table["close"])
    assert set(table["volume"]) == {0.0}


def test_a_day_of_publication_is_over_at_midnight_in_new_york_in_winter_and_in_summer(tmp_path: Path) -> None:
    fred(
        tmp_path,
        "R",
        "date,value,realtime_start",
        "2024-01-01,1,2024-01-31",
        "2024-03-01,2,2024-03-09",  # the clocks go forward in the night after it
        "2024-06-01,3,2024-06-30",
    )
    assert when(read(tmp_path).table) == ["2024-02-01 05:00", "2024-03-10 05:00", "2024-07-01 04:00"]


def test_a_lag_counts_from_the_beginning_of_the_date(tmp_path: Path) -> None:
    fred(tmp_path, "R", "observation_date,R", "2024-01-02,1", "2024-07-02,2", "2024-07-03,2", "2024-07-04,2")
    table = read(tmp_path, "36h").table
    assert when(table)[:2] == ["2024-01-03 17:00", "2024-07-03 16:00"]


def test_a_series_with_neither_publication_times_nor_a_lag_is_refused_with_a_way_out(
    tmp_path: Path,
) -> None:
    fred(tmp_path, "R", "DATE,R", "2024-01-02,1")
    with pytest.raises(DataError) as caught:
        read_context({"fred_R": FredContext(("R",))}, tmp_path)
    assert "no column 'published'" in str(caught.value)
    assert "publication_lag" in str(caught.value.fix)


def test_a_lag_that_is_shorter_than_what_a_value_is_about_is_refused(tmp_path: Path) -> None:
    fred(tmp_path, "R", "date,value", *(f"2024-{month:02}-01,{month}" for month in range(1, 13)))
    assert "is shorter than the 31 days" in refused(tmp_path, "2w")
    assert when(read(tmp_path, "45d").table)[0] == "2024-02-15 05:00"


def test_a_daily_lag_may_be_one_day_through_the_change_to_summer_time(tmp_path: Path) -> None:
    fred(tmp_path, "R", "date,value", *(f"2024-03-{day:02},1" for day in range(6, 14)))
    assert when(read(tmp_path, "1d").table)[:2] == ["2024-03-07 05:00", "2024-03-08 05:00"]


def test_a_restated_value_is_left_out_and_counted(tmp_path: Path) -> None:
    fred(
        tmp_path,
        "R",
        "date,value,published",
        "2024-01-01,1,2024-02-10",
        "2024-01-01,1.1,2024-03-10",
        "2024-02-01,2,2024-03-12",
    )
    series = read(tmp_path)
    assert closes(series.table) == [1.0, 2.0]
    assert series.notes == ("later restatements, of which none counts: 1",)


def test_a_value_that_comes_after_a_later_one_is_left_out_and_counted(tmp_path: Path) -> None:
    fred(
        tmp_path,
        "R",
        "date,value,published",
        "2024-01-01,1,2024-02-10",
        "2024-02-01,2,2024-05-10",
        "2024-03-01,3,2024-04-10",
    )
    series = read(tmp_path)
    assert closes(series.table) == [1.0, 3.0]
    assert when(series.table) == ["2024-02-11 05:00", "2024-04-11 04:00"]
    assert series.notes == ("left out, as a later one had been published: 1",)


def test_values_that_were_published_together_are_all_rows_and_none_is_early(tmp_path: Path) -> None:
    fred(
        tmp_path,
        "R",
        "date,value,published",
        "2024-01-01,1,2024-03-01T12:00Z",
        "2024-01-02,2,2024-03-01T12:00Z",
        "2024-01-03,3,2024-03-01T12:00Z",
    )
    table = read(tmp_path).table
    assert closes(table) == [1.0, 2.0, 3.0]
    assert [time.isoformat() for time in table.index] == [
        "2024-03-01T12:00:00+00:00",
        "2024-03-01T12:00:00.000001+00:00",
        "2024-03-01T12:00:00.000002+00:00",
    ]


def test_days_without_a_value_are_left_out_and_counted(tmp_path: Path) -> None:
    fred(tmp_path, "R", "date,value", "2024-01-01,.", "2024-01-02,5", "2024-01-03,")
    series = read(tmp_path, "2d")
    assert closes(series.table) == [5.0]
    assert series.notes == ("days without a value: 2",)


# --- spreads


def test_a_spread_is_the_first_less_the_second_whenever_one_of_them_is_published(tmp_path: Path) -> None:
    fred(
        tmp_path,
        "A",
        "date,value,published",
        "2024-01-01,10,2024-01-02T00:00Z",
        "2024-01-02,11,2024-01-03T00:00Z",
        "2024-01-03,12,2024-01-04T00:00Z",
        "2024-01-05,14,2024-01-06T00:00Z",
    )
    fred(
        tmp_path,
        "B",
        "date,value,published",
        "2023-12-01,1,2024-01-02T12:00Z",
        "2024-01-01,3,2024-01-04T00:00Z",
    )
    entry = FredContext(("A", "B"))
    assert entry.source_ids == ("fred_A", "fred_B", "yield_spread_A_B")
    table = entry.read("yield_spread_A_B", tmp_path).table
    assert when(table) == ["2024-01-02 12:00", "2024-01-03 00:00", "2024-01-04 00:00", "2024-01-06 00:00"]
    assert closes(table) == [9.0, 10.0, 9.0, 11.0]


# --- other symbols, and reports


def test_a_bar_of_another_symbol_is_known_at_its_close(tmp_path: Path) -> None:
    write(tmp_path / "X_4h.csv", "timestamp,open,high,low,close,volume", "2024-01-01T08:00Z,1,4,1,2,9")
    table = SymbolContext("X", "4h").read("X", tmp_path).table
    assert when(table) == ["2024-01-01 12:00"]
    assert table.iloc[0].tolist() == [1, 4, 1, 2, 9]


def test_a_report_is_known_by_the_schedule_unless_its_file_says_when(tmp_path: Path) -> None:
    path = write(tmp_path / "cot" / "EUR.csv", ",net_position", "2024-05-14,-5", "2024-05-21,7")
    series = CotContext("EUR").read("cot_EUR_net_pos", tmp_path)
    assert when(series.table) == ["2024-05-17 19:30", "2024-05-24 19:30"]
    assert series.notes == ("published by the CFTC's schedule, as the file has no column 'published'",)
    write(path, "date,net_position,published", "2024-05-14,-5,2024-05-20T20:00Z")
    assert when(CotContext("EUR").read("cot_EUR_net_pos", tmp_path).table) == ["2024-05-20 20:00"]


def test_the_percentage_of_a_report_is_its_rank_in_a_year_of_reports(tmp_path: Path) -> None:
    values = [*range(51), 25.5, -1, 100]
    lines = [
        f"{2000 + number // 12}-{number % 12 + 1:02}-01,{value},{2000 + number // 12}-{number % 12 + 1:02}-20"
        for number, value in enumerate(values)
    ]
    write(tmp_path / "cot" / "X.csv", "report_date,net_pos,published", *lines)
    table = CotContext("X").read("cot_X_net_pct", tmp_path).table
    # Of the 51 before each: 0 to 25 are lower than 25.5; none than -1; all than 100.
    assert closes(table) == [100 * 26 / 51, 0.0, 100.0]
    assert when(table)[0] == "2004-04-21 04:00"


def test_too_few_reports_for_a_rank_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "cot" / "X.csv", "date,value", "2024-05-14,1")
    with pytest.raises(DataError, match="has 1 reports; cot_X_net_pct is the rank among 52"):
        CotContext("X").read("cot_X_net_pct", tmp_path)


# --- what is wrong


def test_everything_that_is_wrong_is_told_in_one_go_with_its_lines(tmp_path: Path) -> None:
    fred(
        tmp_path,
        "R",
        "date,value,published",
        "2024-01-02,1,2024-01-03",
        "2024-01-02,2,2024-01-03",
        "2024-01-01,3,2024-01-03",
        "2024-01-04,x,2024-01-05",
        "2024-01-05,inf,2024-01-06",
        "2024-01-08,4,2024-01-07",
        "2024-01-09,5,soon",
        "2024-01-10,6,",
        "10.1.2024,7,2024-01-11",
        "2024-02-30,7,2024-03-11",
        "2024-01-11,8",
    )
    message = refused(tmp_path)
    for expected in (
        "double dates: line 3 (2024-01-02 is on line 2 too)",
        "dates out of order: line 4 (2024-01-01 comes after 2024-01-02)",
        "text in place of a number: line 5 ('x')",
        "infinite values or none: line 6 (inf)",
        "values published before their date: line 7 (2024-01-07 for 2024-01-08)",
        "publication times that are not ISO 8601: line 8 ('soon')",
        "missing publication times: line 9 ('')",
        "dates that are not ISO 8601 (2017-01-31): line 10 ('10.1.2024'), line 11 ('2024-02-30')",
        "wrong number of fields: line 12 (2 instead of 3)",
    ):
        assert expected in message
    assert "has 10 problems" in message


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ([""], "is empty"),
        (["date,value"], "has a header but no values"),
        (["date,value", "2024-01-01,."], "has a header but no values"),
        (["day,value", "2024-01-01,1"], "lacks a column 'date'. Its columns are 'day', 'value'"),
        (["date,rate", "2024-01-01,1"], "lacks a column of values (value, close, r)"),
    ],
)
def test_a_file_without_what_a_series_has_is_refused(lines: list[str], expected: str, tmp_path: Path) -> None:
    fred(tmp_path, "R", *lines)
    assert expected in refused(tmp_path)


def test_a_file_that_is_not_text_is_refused(tmp_path: Path) -> None:
    fred(tmp_path, "R").write_bytes(b"date,value\n\xff\xfe,1\n")
    assert "is not UTF-8 text" in refused(tmp_path)


def test_a_series_that_is_not_there_is_told_with_the_nearest_and_with_what_there_is(tmp_path: Path) -> None:
    fred(tmp_path, "DGS10", "date,value")
    fred(tmp_path, "CPI", "date,value")
    with pytest.raises(DataError) as caught:
        read(tmp_path, name="DGS1")
    assert "There is no series 'DGS1'" in str(caught.value)
    assert "Did you mean 'DGS10'? There is CPI, DGS10." in str(caught.value)
    with pytest.raises(DataError, match="There is none at all"):
        CotContext("EUR").read("cot_EUR_net_pos", tmp_path)
