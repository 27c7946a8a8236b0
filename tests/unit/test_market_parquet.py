"""Parquet files as others write them."""

from decimal import Decimal
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ktrdr.errors import DataError
from ktrdr.market.bars import Bars
from ktrdr.market.parquet_reader import read_parquet
from ktrdr.market.timeframe import Timeframe

HOUR = Timeframe.parse("1h")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "EURUSD_1h.parquet"


@pytest.fixture
def table(eurusd: Bars) -> pa.Table:
    return pa.Table.from_pandas(eurusd.reset_index(), preserve_index=False)


def replace(table: pa.Table, name: str, values: object) -> pa.Table:
    return table.set_column(table.schema.get_field_index(name), name, values)


def refusal(table: pa.Table, file: Path) -> str:
    pq.write_table(table, file)
    with pytest.raises(DataError) as refused:
        read_parquet(file, HOUR)
    assert str(file) in str(refused.value)
    return str(refused.value)


def test_what_pandas_writes_is_read_back(file: Path, eurusd: Bars) -> None:
    eurusd.to_parquet(file)
    pd.testing.assert_frame_equal(read_parquet(file, HOUR), eurusd, check_freq=False)


@pytest.mark.parametrize(
    "kind", [pa.timestamp("ns"), pa.timestamp("ms", tz="UTC"), pa.timestamp("us", tz="Asia/Tokyo")]
)
def test_times_of_any_resolution_and_zone_are_the_same_moments(
    file: Path, table: pa.Table, eurusd: Bars, kind: pa.DataType
) -> None:
    pq.write_table(replace(table, "timestamp", table["timestamp"].cast(kind)), file)
    pd.testing.assert_frame_equal(read_parquet(file, HOUR), eurusd, check_freq=False)


def test_dates_are_midnights_in_utc(file: Path, table: pa.Table) -> None:
    days = pa.array(pd.date_range("2017-01-02", periods=3).date)
    pq.write_table(replace(table.slice(0, 3), "timestamp", days), file)
    assert read_parquet(file, Timeframe.parse("1d")).index[2] == pd.Timestamp("2017-01-04", tz="UTC")


def test_any_numbers_will_do(file: Path, table: pa.Table) -> None:
    short = table.slice(0, 2)
    short = replace(short, "volume", pa.array([1, 2], pa.int32()))
    short = replace(short, "high", pa.array([Decimal("2.5"), Decimal("2.75")]))
    pq.write_table(short.rename_columns([name.upper() for name in short.column_names]), file)
    bars = read_parquet(file, HOUR)
    assert bars["volume"].tolist() == [1.0, 2.0]
    assert bars["high"].tolist() == [2.5, 2.75]
    assert set(bars.dtypes) == {np.dtype(np.float64)}


def test_what_is_not_parquet_is_refused(file: Path) -> None:
    for content in (b"", b"PAR1", b"timestamp,open\n" * 10, b"PAR1" + b"\0" * 50 + b"PAR1"):
        file.write_bytes(content)
        with pytest.raises(DataError, match="cannot be read"):
            read_parquet(file, HOUR)
    with pytest.raises(DataError, match="No such file"):
        read_parquet(file.with_name("missing.parquet"), HOUR)


def test_no_bars_are_refused(file: Path, table: pa.Table) -> None:
    assert "has no bars" in refusal(table.slice(0, 0), file)


def test_missing_columns_are_named(file: Path, table: pa.Table) -> None:
    assert "column 'close' is missing" in refusal(table.drop_columns(["close"]), file)


def test_text_in_a_price_column_is_refused(file: Path, table: pa.Table) -> None:
    message = refusal(replace(table, "close", table["close"].cast(pa.string())), file)
    assert "column 'close' is stored as string" in message


def test_times_as_text_or_numbers_are_refused(file: Path, table: pa.Table) -> None:
    assert "times are stored as int64" in refusal(
        replace(table, "timestamp", table["timestamp"].cast(pa.int64())), file
    )
    assert "times are stored as string" in refusal(
        replace(table, "timestamp", table["timestamp"].cast(pa.string())), file
    )


def test_times_finer_than_a_microsecond_are_refused(file: Path, table: pa.Table) -> None:
    finer = pa.array(np.array([1, 3_600_000_000_001], "M8[ns]"))
    assert "would lose data" in refusal(replace(table.slice(0, 2), "timestamp", finer), file)


def test_nulls_and_wrong_values_are_named_by_row(file: Path, table: pa.Table) -> None:
    short = replace(table.slice(0, 3), "volume", pa.array([1.0, None, -1.0]))
    message = refusal(short, file)
    assert "missing or infinite values: row 2 (volume nan)" in message
    assert "negative volume: row 3 (volume -1)" in message
    times = pa.array(
        [None, *table["timestamp"].slice(1, 2).to_pylist()], table.schema.field("timestamp").type
    )
    assert "missing times: row 1" in refusal(replace(table.slice(0, 3), "timestamp", times), file)
