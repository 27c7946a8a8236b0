"""Finding bars on disk, whole or in part, native or resampled, and errors that say what there is."""

import shutil
from datetime import UTC, date, datetime
from pathlib import Path

import pandas as pd
import pytest
from pydantic import TypeAdapter

from ktrdr.errors import DataError
from ktrdr.events import Name
from ktrdr.market.bars import Bars
from ktrdr.market.directory import BarDirectory
from ktrdr.market.resample import resample
from ktrdr.market.timeframe import Timeframe

DATA = Path(__file__).parents[2] / "data"
HOUR = Timeframe.parse("1h")


@pytest.fixture
def directory(tmp_path: Path) -> BarDirectory:
    return BarDirectory(tmp_path)


def add(directory: BarDirectory, *names: str, source: str = "EURUSD_1h.csv") -> None:
    for name in names:
        shutil.copy(DATA / source, directory.root / name)


def refusal(directory: BarDirectory, symbol: str = "EURUSD", timeframe: str = "1h", **limits: str) -> str:
    with pytest.raises(DataError) as refused:
        directory.load(symbol, timeframe, **limits)
    return str(refused.value)


# --- what there is --------------------------------------------------------------------------------


def test_the_sample_data_is_found() -> None:
    found = [(file.symbol, str(file.timeframe), file.path.name) for file in BarDirectory(DATA).list()]
    assert found == [("EURUSD", "1h", "EURUSD_1h.csv"), ("GOOGL", "1d", "GOOGL_1d.csv")]


def test_files_are_listed_by_symbol_and_length(directory: BarDirectory) -> None:
    add(directory, "B_1d.csv", "B_1h.csv", "B_15m.csv", "A_1M.csv", "A_1w.parquet")
    listed = [f"{file.symbol} {file.timeframe}" for file in directory.list()]
    assert listed == ["A 1w", "A 1M", "B 15m", "B 1h", "B 1d"]


def test_the_timeframe_is_after_the_last_underscore(directory: BarDirectory) -> None:
    add(directory, "BTC_USDT_1h.csv", "BRK.B_1h.csv", "ES-2024_1h.csv")
    assert [file.symbol for file in directory.list()] == ["BRK.B", "BTC_USDT", "ES-2024"]
    assert len(directory.load("BTC_USDT", "1h")) == 6225


def test_every_symbol_found_can_be_named_in_an_event(directory: BarDirectory) -> None:
    add(directory, "BRK.B_1h.csv", "a@b_1h.csv", "C++_1h.csv", "x" * 128 + "_1h.csv")
    add(
        directory,
        ".hidden_1h.csv",
        "ü_1h.csv",
        "A B_1h.csv",
        "^GSPC_1h.csv",
        "y" * 129 + "_1h.csv",
        "_1h.csv",
    )
    found = [file.symbol for file in directory.list()]
    assert found == ["BRK.B", "C++", "a@b", "x" * 128]
    for symbol in found:
        TypeAdapter(Name).validate_python(symbol)


def test_what_is_not_a_file_of_bars_is_left_alone(directory: BarDirectory) -> None:
    add(directory, "EURUSD_1h.csv", "EURUSD.csv", "EURUSD_1H.csv", "EURUSD_1h.csv.bak", "notes.txt")
    (directory.root / "GOOGL_1d.csv").mkdir()
    assert [file.path.name for file in directory.list()] == ["EURUSD_1h.csv"]


def test_a_missing_directory_is_an_error_that_names_the_setting(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="No such file or directory") as refused:
        BarDirectory(tmp_path / "nowhere").list()
    assert str(tmp_path / "nowhere") in str(refused.value)
    assert refused.value.fix is not None
    assert "KTRDR_DATA_DIR" in refused.value.fix


# --- reading --------------------------------------------------------------------------------------


def test_csv_and_parquet_give_the_same_bars(directory: BarDirectory, eurusd: Bars) -> None:
    eurusd.to_parquet(directory.root / "EURUSD_1h.parquet")
    read = directory.read("EURUSD", "1h")
    assert not read.resampled
    assert read.file.path.suffix == ".parquet"
    pd.testing.assert_frame_equal(read.bars, BarDirectory(DATA).load("EURUSD", "1h"))


def test_the_report_says_what_was_loaded() -> None:
    read = BarDirectory(DATA).read("EURUSD", "1h", start="2017-12-18", end="2017-12-26")
    assert read.report.rows == len(read.bars)
    # The weekend is known from the whole file, though the range has one only.
    assert read.report.missing_bars == 15
    assert read.report.source.endswith("EURUSD_1h.csv")


def test_a_file_with_problems_is_refused(directory: BarDirectory) -> None:
    text = (DATA / "EURUSD_1h.csv").read_text().replace("1.05281", "1.O5281", 1)
    (directory.root / "EURUSD_1h.csv").write_text(text)
    assert "text in place of a number: line 4 (close '1.O5281')" in refusal(directory)


# --- ranges ---------------------------------------------------------------------------------------


def ends(**limits: object) -> tuple[str, str]:
    bars = BarDirectory(DATA).load("EURUSD", "1h", **limits)  # type: ignore[arg-type]  # also wrong ones
    return f"{bars.index[0]:%Y-%m-%d %H:%M}", f"{bars.index[-1]:%Y-%m-%d %H:%M}"


def test_without_a_range_there_is_everything() -> None:
    assert ends() == ("2017-01-01 22:00", "2017-12-29 21:00")


@pytest.mark.parametrize(
    ("start", "end"),
    [
        ("2017-03-01", "2017-03-02"),
        (date(2017, 3, 1), date(2017, 3, 2)),
        ("2017-03-01T00:00", "2017-03-02T23:00"),
        ("2017-03-01T00:00Z", "2017-03-02T23:59:59.999999Z"),
        (datetime(2017, 3, 1, tzinfo=UTC), datetime(2017, 3, 2, 23, tzinfo=UTC)),
        ("2017-03-01T01:00+01:00", "2017-03-03T00:00+01:00"),
    ],
)
def test_a_range_begins_with_its_start_and_includes_its_last_day_or_bar(start: object, end: object) -> None:
    assert ends(start=start, end=end) == ("2017-03-01 00:00", "2017-03-02 23:00")


def test_a_time_as_end_cuts_within_the_day() -> None:
    assert ends(end="2017-03-02T12:00")[1] == "2017-03-02 12:00"
    assert ends(end="2017-03-02T12:59")[1] == "2017-03-02 12:00"
    assert ends(end=datetime(2017, 3, 2))[1] == "2017-03-02 00:00"  # noqa: DTZ001 - naive times are UTC


def test_a_range_may_reach_beyond_the_data() -> None:
    assert ends(start="1990-01-01", end="2030-01-01") == ends()


@pytest.mark.parametrize(
    "limits", [{"start": "2018-01-01"}, {"end": "2016-12-31"}, {"start": "2017-01-07", "end": "2017-01-07"}]
)
def test_an_empty_range_is_refused_with_what_there_is(limits: dict[str, str]) -> None:
    message = refusal(BarDirectory(DATA), **limits)
    assert "has no bars" in message
    assert "its bars open from 2017-01-01 22:00 to 2017-12-29 21:00 UTC" in message


def test_an_end_before_the_start_is_refused() -> None:
    message = refusal(BarDirectory(DATA), start="2017-03-02", end="2017-03-01")
    assert message == "The end (2017-03-01) is before the start (2017-03-02). Name a start before the end."


@pytest.mark.parametrize("text", ["", "soon", "2017-13-01", "01/02/2017", "2017-03-01T25:00"])
def test_what_is_no_time_is_refused(text: str) -> None:
    assert f"The start '{text}' is not a date or time" in refusal(BarDirectory(DATA), start=text)


# --- other timeframes -----------------------------------------------------------------------------


def test_a_coarser_timeframe_is_made_of_a_finer_one(eurusd: Bars) -> None:
    read = BarDirectory(DATA).read("EURUSD", "4h")
    assert read.resampled
    assert str(read.file.timeframe) == "1h"
    assert read.report.rows == 6225
    pd.testing.assert_frame_equal(read.bars, resample(eurusd, HOUR, Timeframe.parse("4h")))


def test_coarser_bars_do_not_depend_on_the_range() -> None:
    directory = BarDirectory(DATA)
    whole = directory.load("EURUSD", "1d")
    # In the middle of a week and of a day.
    part = directory.load("EURUSD", "1d", start="2017-03-01T05:00", end="2017-03-08")
    pd.testing.assert_frame_equal(part, whole.loc["2017-03-02":"2017-03-08"])


@pytest.mark.parametrize(("wanted", "source"), [("4h", "4h"), ("1d", "4h"), ("2h", "1h"), ("6h", "1h")])
def test_the_coarsest_that_fits_is_taken(
    directory: BarDirectory, eurusd: Bars, wanted: str, source: str
) -> None:
    add(directory, "EURUSD_1h.csv")
    resample(eurusd, HOUR, Timeframe.parse("4h")).to_csv(directory.root / "EURUSD_4h.csv")
    (directory.root / "EURUSD_1m.csv").write_text("not read")
    (directory.root / "EURUSD_1w.csv").write_text("not read")
    read = directory.read("EURUSD", wanted)
    assert str(read.file.timeframe) == source
    assert read.resampled == (source != wanted)


def test_the_same_timeframe_by_another_name_is_as_good(directory: BarDirectory, eurusd: Bars) -> None:
    add(directory, "EURUSD_60m.csv")
    read = directory.read("EURUSD", "1h")
    assert not read.resampled
    assert len(read.bars) == len(eurusd)


def test_a_timeframe_finer_than_the_data_is_refused_with_what_there_is() -> None:
    message = refusal(BarDirectory(DATA), timeframe="5m")
    assert "Timeframe 5m is finer than the data of EURUSD" in message
    assert "EURUSD_1h.csv" in message


def test_a_timeframe_that_nothing_fits_is_refused(directory: BarDirectory) -> None:
    add(directory, "EURUSD_7h.csv", "EURUSD_1w.csv")
    message = refusal(directory, timeframe="1d")
    assert "Bars of 1d cannot be made from the data of EURUSD" in message
    assert "EURUSD_7h.csv, EURUSD_1w.csv" in message


def test_too_few_bars_for_one_coarse_bar_are_refused(directory: BarDirectory) -> None:
    lines = (DATA / "EURUSD_1h.csv").read_text().splitlines(keepends=True)
    (directory.root / "EURUSD_1h.csv").write_text("".join(lines[:10]))
    message = refusal(directory, timeframe="1w")
    assert (
        "has no bars of 1w, made of 1h: its bars open from 2017-01-01 22:00 to 2017-01-02 06:00 UTC"
        in message
    )


def test_a_bad_timeframe_is_refused() -> None:
    assert "'1H' is not a timeframe. Did you mean '1h'?" in refusal(BarDirectory(DATA), timeframe="1H")


# --- other symbols --------------------------------------------------------------------------------


def test_an_unknown_symbol_is_refused_with_the_nearest_and_what_there_is() -> None:
    message = refusal(BarDirectory(DATA), symbol="EURUDS")
    assert f"There are no bars of 'EURUDS' in {DATA}" in message
    assert "Did you mean 'EURUSD'?" in message
    assert "There is EURUSD 1h, GOOGL 1d." in message


def test_a_symbol_in_the_wrong_case_is_told() -> None:
    assert "Did you mean 'EURUSD'?" in refusal(BarDirectory(DATA), symbol="eurusd")


def test_files_with_other_names_are_mentioned(directory: BarDirectory) -> None:
    add(directory, "EURUSD.csv")
    message = refusal(directory)
    assert "It has no bars at all. Not named as SYMBOL_TIMEFRAME: EURUSD.csv." in message
    assert "Add EURUSD_1h.csv, say." in message


@pytest.mark.parametrize("symbol", ["", "../EURUSD", "/etc/passwd", "a/b", "EURUSD\0", "*", "EURUSD_1h.csv"])
def test_a_symbol_is_never_a_path(symbol: str) -> None:
    assert "There are no bars of" in refusal(BarDirectory(DATA), symbol=symbol)


def test_two_files_for_one_timeframe_are_refused(directory: BarDirectory, eurusd: Bars) -> None:
    add(directory, "EURUSD_1h.csv")
    eurusd.to_parquet(directory.root / "EURUSD_1h.parquet")
    message = refusal(directory)
    assert "EURUSD_1h.csv and EURUSD_1h.parquet, and nothing says which is right" in message


def test_a_long_list_is_cut(directory: BarDirectory) -> None:
    add(directory, *(f"S{i:02}_1h.csv" for i in range(15)))
    assert "S09 1h and 5 more" in refusal(directory)


@pytest.mark.parametrize(
    "limits", [{"start": "2018-01-01"}, {"start": "2017-03-02", "end": "2017-03-01"}, {"end": "soon"}]
)
def test_a_range_that_is_refused_comes_with_what_to_do(limits: dict[str, str]) -> None:
    with pytest.raises(DataError) as raised:
        BarDirectory(DATA).read("EURUSD", "1h", **limits)
    assert raised.value.fix
