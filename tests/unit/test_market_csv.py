"""CSV files of bars: what is read, and what is said of those that are wrong."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ktrdr.errors import DataError
from ktrdr.market.bars import BAR_COLUMNS
from ktrdr.market.csv_reader import read_csv
from ktrdr.market.timeframe import Timeframe

DATA = Path(__file__).parents[2] / "data"
HOUR = Timeframe.parse("1h")
HEADER = "timestamp,open,high,low,close,volume"
GOOD = ["2017-01-02T00:00:00Z,1.0,2.0,0.5,1.5,10", "2017-01-02T01:00:00Z,1.5,1.6,1.4,1.5,20"]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "EURUSD_1h.csv"


def write(path: Path, *lines: str, end: str = "\n", encoding: str = "utf-8") -> Path:
    path.write_bytes(end.join([*lines, ""]).encode(encoding))
    return path


def refusal(path: Path) -> str:
    with pytest.raises(DataError) as refused:
        read_csv(path, HOUR)
    message = str(refused.value)
    assert str(path) in message
    return message


def test_real_files_are_read_exactly() -> None:
    for name, timeframe in (("EURUSD_1h", "1h"), ("GOOGL_1d", "1d")):
        path = DATA / f"{name}.csv"
        bars = read_csv(path, Timeframe.parse(timeframe))
        texts = pd.read_csv(path, dtype=str)
        assert bars.index.tolist() == pd.to_datetime(texts["timestamp"]).tolist()
        for column in BAR_COLUMNS:
            assert bars[column].tolist() == [float(text) for text in texts[column]]


def test_bars_have_the_promised_form(file: Path) -> None:
    bars = read_csv(write(file, HEADER, *GOOD), HOUR)
    assert tuple(bars.columns) == BAR_COLUMNS
    assert set(bars.dtypes) == {np.dtype(np.float64)}
    assert bars.index.name == "timestamp"
    assert str(bars.index.dtype) == "datetime64[us, UTC]"
    assert bars.iloc[0].tolist() == [1.0, 2.0, 0.5, 1.5, 10.0]


@pytest.mark.parametrize("name", ["Timestamp", "date", "DateTime", " TIME "])
def test_headers_may_be_in_any_case_and_order(file: Path, name: str) -> None:
    header = f"Volume,{name},Open,HIGH,low, Close ,comment,comment"
    bars = read_csv(write(file, header, '7,2017-01-02T00:00:00Z,1,2,0.5,1.5,"a, b",ü'), HOUR)
    assert bars.iloc[0].tolist() == [1.0, 2.0, 0.5, 1.5, 7.0]


@pytest.mark.parametrize(
    "time",
    [
        "2017-01-02T05:00:00Z",
        "2017-01-02 05:00",
        "2017-01-02 05",
        "2017-01-02T07:00:00+02:00",
        "2017-01-02T05:00:00.000Z",
    ],
)
def test_times_are_utc_unless_they_say_otherwise(file: Path, time: str) -> None:
    bars = read_csv(write(file, HEADER, f"{time},1,2,0.5,1.5,10"), HOUR)
    assert bars.index[0] == pd.Timestamp("2017-01-02 05:00", tz="UTC")


def test_a_date_is_its_midnight_in_utc(file: Path) -> None:
    bars = read_csv(write(file, HEADER, "2017-01-02,1,2,0.5,1.5,10"), Timeframe.parse("1d"))
    assert bars.index[0] == pd.Timestamp("2017-01-02", tz="UTC")


def test_blank_lines_windows_line_ends_and_a_byte_order_mark_are_no_problem(file: Path) -> None:
    bars = read_csv(
        write(file, "", HEADER, "", GOOD[0], "", GOOD[1], "", end="\r\n", encoding="utf-8-sig"), HOUR
    )
    assert len(bars) == 2


# --- files that are no tables of bars -------------------------------------------------------------


def test_a_missing_file_is_refused(file: Path) -> None:
    assert "No such file" in refusal(file)


@pytest.mark.parametrize("content", [b"", b"\n\n", b"\xef\xbb\xbf"])
def test_an_empty_file_is_refused(file: Path, content: bytes) -> None:
    file.write_bytes(content)
    assert "is empty" in refusal(file)


def test_a_header_without_bars_is_refused(file: Path) -> None:
    assert "has a header but no bars" in refusal(write(file, HEADER))
    file.write_text(HEADER)
    assert "has a header but no bars" in refusal(file)


@pytest.mark.parametrize(("separator", "name"), [(";", "semicolons"), ("\t", "tabs"), ("|", "bars")])
def test_another_separator_is_named(file: Path, separator: str, name: str) -> None:
    path = write(file, HEADER.replace(",", separator), GOOD[0].replace(",", separator))
    assert f"separated by commas, not by {name}" in refusal(path)


def test_missing_columns_are_all_named_with_the_nearest_names(file: Path) -> None:
    message = refusal(write(file, "timestamp,open,hihg,low,adj close", "2017-01-02T00:00:00Z,1,2,0.5,1.5"))
    assert "column 'high' is missing (is it 'hihg'?)" in message
    assert "column 'close' is missing (is it 'adj close'?)" in message
    assert "column 'volume' is missing" in message
    assert "Its columns are 'timestamp', 'open', 'hihg', 'low', 'adj close'" in message


def test_a_missing_time_column_is_named(file: Path) -> None:
    assert "column 'timestamp' is missing (is it 'times'?)" in refusal(
        write(file, HEADER.replace("timestamp", "times"), *GOOD)
    )


def test_a_double_column_is_refused(file: Path) -> None:
    assert "column 'open' is there 2 times" in refusal(write(file, HEADER + ",Open", GOOD[0] + ",1"))


def test_date_and_time_apart_are_refused(file: Path) -> None:
    message = refusal(write(file, "date,time,open,high,low,close,volume", "2017-01-02,00:00,1,2,0.5,1.5,10"))
    assert "'date' and 'time' could each be the time of a bar" in message


def test_a_timestamp_wins_over_other_time_columns(file: Path) -> None:
    bars = read_csv(write(file, HEADER + ",date", GOOD[0] + ",1999-01-01"), HOUR)
    assert bars.index[0] == pd.Timestamp("2017-01-02", tz="UTC")


def test_what_is_not_text_is_refused(file: Path) -> None:
    file.write_bytes(b"\xff\xfe\x00t\x00i" * 100)
    assert "is not UTF-8 text" in refusal(file)


def test_a_field_without_end_is_refused(file: Path) -> None:
    file.write_text('"' + "x" * 200_000)
    assert "is not CSV" in refusal(file)


def test_a_directory_is_refused(tmp_path: Path) -> None:
    assert "cannot be read" in refusal(tmp_path)


# --- rows that are wrong, each with its line ------------------------------------------------------


def test_text_in_a_price_column_is_named_with_its_line(file: Path) -> None:
    message = refusal(write(file, HEADER, GOOD[0], "2017-01-02T01:00:00Z,1.5,1.6,abc,1.5,20"))
    assert message == (
        f"{file} has a problem:\n"
        "  text in place of a number: line 3 (low 'abc'). Correct the data and try again."
    )


@pytest.mark.parametrize("text", ["1.5x", "N/A", "1 000", "1_000", "0x10", "--", "€1"])
def test_whatever_is_not_a_number_is_text(file: Path, text: str) -> None:
    assert f"line 2 (volume {text!r})" in refusal(
        write(file, HEADER, f"2017-01-02T01:00:00Z,1.5,1.6,1.4,1.5,{text}")
    )


def test_decimal_commas_are_wrong_numbers_or_too_many_fields(file: Path) -> None:
    assert "line 2 (open '1,5')" in refusal(write(file, HEADER, '2017-01-02T01:00:00Z,"1,5",1.6,1.4,1.5,20'))
    message = refusal(write(file, HEADER, GOOD[0], "2017-01-02T01:00:00Z,1,5,1,6,1,4,1,5,20"))
    assert "wrong number of fields: line 3 (10 instead of 6)" in message


@pytest.mark.parametrize(
    ("time", "problem"),
    [
        ("01/02/2017 05:00", "times that are not ISO 8601"),
        ("2017.01.02 05:00", "times that are not ISO 8601"),
        ("20170102", "times that are not ISO 8601"),
        (" 2017-01-02T05:00:00Z", "times that are not ISO 8601"),
        ("2017-01-02T05:00:00.1234567Z", "times that are not ISO 8601"),
        ("yesterday", "times that are not ISO 8601"),
        ("1483333200", "seconds or milliseconds since 1970"),
        ("1483333200000", "seconds or milliseconds since 1970"),
        ("2017-02-30T05:00:00Z", "times that do not exist"),
        ("2017-01-02T25:00:00Z", "times that do not exist"),
        ("2017-01-02T05:00:00", "times without a time zone, which the first one has"),
        ("", "missing times"),
    ],
)
def test_times_that_cannot_be_read_are_named_with_their_line(file: Path, time: str, problem: str) -> None:
    message = refusal(write(file, HEADER, GOOD[0], f"{time},1,2,0.5,1.5,10"))
    assert problem in message
    assert "line 3" in message


def test_a_zone_after_times_without_one_is_refused(file: Path) -> None:
    lines = ["2017-01-02 00:00,1,2,0.5,1.5,10", "2017-01-02T01:00:00Z,1,2,0.5,1.5,10"]
    assert "times with a time zone, which the first one lacks: line 3" in refusal(write(file, HEADER, *lines))


def test_all_problems_are_listed_at_once_with_their_lines(file: Path) -> None:
    lines = [
        "2017-01-02T00:00:00Z,1,2,0.5,1.5,10",
        "",  # blank lines count
        "2017-01-02T01:00:00Z,1,1.2,0.5,1.5,10",
        "2017-01-02T01:00:00Z,1,2,0.5,1.5,10",
        "2017-01-02T03:00:00Z,1,2,0.5,,10",
        "2017-01-02T02:00:00Z,1,2,0.5,1.5,-10",
        "2017-01-02T04:00:00Z,one,2,0.5,1.5,10",
        "2017-01-02T05:00:00Z,1,2,1.1,1.5,10",
        "2017-01-02T06:00:00Z,1,2,0.5,1.5",
        "2017-01-02T07:00:00Z,0,2,0,1.5,10",
        "noon,1,2,0.5,1.5,10",
    ]
    message = refusal(write(file, HEADER, *lines))
    assert message.splitlines() == [
        f"{file} has 10 problems:",
        "  text in place of a number: line 8 (open 'one');",
        "  wrong number of fields: line 10 (5 instead of 6);",
        "  times that are not ISO 8601 (2017-01-31T22:00:00Z): line 12 ('noon');",
        "  double times: line 5 (2017-01-02 01:00 is on line 4 too, with other values);",
        "  times out of order: line 7 (2017-01-02 02:00 comes after 2017-01-02 03:00);",
        "  missing or infinite values: line 6 (close nan);",
        "  prices of zero or less: line 11 (open 0, low 0);",
        "  high below another price: line 4 (high 1.2, close 1.5);",
        "  low above another price: line 9 (low 1.1, open 1);",
        "  negative volume: line 7 (volume -10). Correct the data and try again.",
    ]


def test_only_the_first_of_many_problems_are_shown(file: Path) -> None:
    lines = [f"2017-01-02T{hour:02}:00:00Z,x,2,0.5,1.5,10" for hour in range(20)]
    message = refusal(write(file, HEADER, *lines))
    assert "20 problems" in message
    assert "line 2 (open 'x'), line 3 (open 'x'), line 4 (open 'x') and 17 more" in message


def test_problems_of_values_alone_come_with_lines_too(file: Path) -> None:
    # The fast way reads this file; only the checks refuse it.
    message = refusal(write(file, HEADER, GOOD[0], "", "", "2017-01-02T01:00:00Z,1,0.9,0.8,0.85,1"))
    assert "line 5 (high 0.9, open 1)" in message


@given(
    row=st.integers(0, 30),
    column=st.integers(0, 5),
    junk=st.text(st.characters(exclude_categories=["Cs"], exclude_characters='\x00\r\n",'), max_size=8),
)
def test_junk_in_any_field_is_read_or_refused_by_line(
    tmp_path_factory: pytest.TempPathFactory, row: int, column: int, junk: str
) -> None:
    times = pd.date_range("2017-01-02", periods=31, freq="h").strftime("%Y-%m-%dT%H:%M:%SZ")
    rows = [[time, "1", "2", "0.5", "1.5", "10"] for time in times]
    rows[row][column] = junk
    path = write(tmp_path_factory.mktemp("junk") / "X_1h.csv", HEADER, *map(",".join, rows))
    try:
        number = float(junk)
    except ValueError:
        number = float("nan")
    readable = [None, 0.5 <= number <= 2, number >= 1.5, 0 < number <= 1, 0.5 <= number <= 2, number >= 0]
    if column > 0 and readable[column] and junk.isascii() and "_" not in junk and np.isfinite(number):
        assert read_csv(path, HOUR).iloc[row, column - 1] == number
    else:
        message = refusal(path)
        assert re.search(r" has (a problem|\d+ problems):", message)  # 0 is no price, and below the low too
        assert f"line {row + 2} (" in message


@given(content=st.binary(max_size=400))
def test_no_content_does_worse_than_be_refused(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    path = tmp_path_factory.mktemp("hostile") / "X_1h.csv"
    path.write_bytes(HEADER.encode() + b"\n" + content)
    with pytest.raises(DataError):
        read_csv(path, HOUR)
