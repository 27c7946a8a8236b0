"""Snapshots: the exact bars, the same bytes for the same bars, and nothing else is read."""

import hashlib
import io
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ktrdr.blobs.directory import DirectoryBlobStore
from ktrdr.errors import DataError
from ktrdr.market.bars import BAR_COLUMNS, Bars
from ktrdr.market.directory import BarDirectory
from ktrdr.market.snapshot import encode_snapshot, read_snapshot, write_snapshot

DATA = Path(__file__).parents[2] / "data"


@pytest.fixture(scope="module")
def bars() -> Bars:
    return BarDirectory(DATA).load("EURUSD", "1h", end="2017-02-28")


@pytest.fixture(scope="module")
def snapshot(bars: Bars) -> bytes:
    return encode_snapshot(bars)


@pytest.fixture(scope="module")
def table(snapshot: bytes) -> pa.Table:
    return pq.read_table(io.BytesIO(snapshot))


def parquet(table: pa.Table, **options: object) -> bytes:
    plain: dict[str, object] = {
        "compression": "none",
        "use_dictionary": False,
        "write_statistics": False,
        "store_schema": False,
    }
    sink = io.BytesIO()
    pq.write_table(table, sink, **(plain | options))
    return sink.getvalue()


def refusal(content: bytes | Path) -> str:
    with pytest.raises(DataError) as refused:
        read_snapshot(content)
    return str(refused.value)


@pytest.mark.parametrize(("symbol", "timeframe"), [("EURUSD", "1h"), ("GOOGL", "1d")])
def test_real_bars_come_back_exactly(tmp_path: Path, symbol: str, timeframe: str) -> None:
    store = DirectoryBlobStore(tmp_path / "blobs")
    bars = BarDirectory(DATA).load(symbol, timeframe)
    ref = write_snapshot(bars, symbol, timeframe, store)
    back = read_snapshot(store.fetch(ref.blob, tmp_path / "snapshot"))
    pd.testing.assert_frame_equal(back, bars, check_exact=True)
    pd.testing.assert_frame_equal(
        read_snapshot(store.get(ref.blob, limit_bytes=10**6)), bars, check_exact=True
    )


def test_the_reference_says_what_is_in_it(tmp_path: Path, bars: Bars, snapshot: bytes) -> None:
    ref = write_snapshot(bars, "EURUSD", "1h", DirectoryBlobStore(tmp_path))
    assert (ref.symbol, ref.timeframe, ref.rows) == ("EURUSD", "1h", len(bars))
    assert ref.start == datetime(2017, 1, 1, 22, tzinfo=UTC)
    assert ref.end == datetime(2017, 2, 28, 23, tzinfo=UTC)
    assert ref.blob.size == len(snapshot)
    assert ref.blob.sha256 == hashlib.sha256(snapshot).hexdigest()


# --- the same bytes -------------------------------------------------------------------------------


def test_equal_bars_give_equal_bytes(bars: Bars, snapshot: bytes) -> None:
    assert encode_snapshot(bars) == snapshot
    assert encode_snapshot(read_snapshot(snapshot)) == snapshot
    # Made in another way: another resolution, memory layout, time zone, index name and attributes.
    other = bars.copy()
    other.index = other.index.as_unit("ns").tz_convert("Asia/Tokyo").rename("time")
    other.attrs["made"] = "elsewhere"
    assert encode_snapshot(pd.DataFrame(other[::-1])[::-1]) == snapshot


def test_zeros_of_either_sign_are_the_same(bars: Bars) -> None:
    plus, minus = bars.assign(volume=0.0), bars.assign(volume=-0.0)
    assert encode_snapshot(plus) == encode_snapshot(minus)


def test_other_bars_give_other_bytes(bars: Bars, snapshot: bytes) -> None:
    other = bars.copy()
    other.iloc[5, 4] = np.nextafter(other.iloc[5, 4], np.inf)
    assert encode_snapshot(other) != snapshot
    assert encode_snapshot(bars.iloc[:-1]) != snapshot


def test_a_snapshot_says_nothing_of_who_made_it(snapshot: bytes) -> None:
    assert b"pandas" not in snapshot
    assert b"ARROW:schema" not in snapshot
    assert pq.ParquetFile(io.BytesIO(snapshot)).schema_arrow.metadata is None


def test_a_snapshot_takes_48_bytes_a_bar(bars: Bars, snapshot: bytes) -> None:
    assert 48 * len(bars) < len(snapshot) < 48 * len(bars) + 4096


@given(
    minutes=st.lists(st.integers(1, 10**6), min_size=1, max_size=50),
    data=st.data(),
)
def test_any_bars_come_back_exactly(minutes: list[int], data: st.DataObject) -> None:
    opens = pd.Timestamp("1990-01-01", tz="UTC") + pd.to_timedelta(np.cumsum(minutes), unit="min")
    price = st.floats(1e-300, 1e300, allow_subnormal=False)
    rows = [sorted(data.draw(st.tuples(price, price, price, price))) for _ in minutes]
    prices = np.array(rows)
    bars = pd.DataFrame(
        {
            "open": prices[:, 1],
            "high": prices[:, 3],
            "low": prices[:, 0],
            "close": prices[:, 2],
            "volume": data.draw(st.lists(st.floats(0, 1e300), min_size=len(rows), max_size=len(rows))),
        },
        index=pd.DatetimeIndex(opens, name="timestamp").as_unit("us"),
    )
    content = encode_snapshot(bars)
    pd.testing.assert_frame_equal(read_snapshot(content), bars, check_exact=True)
    assert encode_snapshot(bars.copy()) == content


# --- nothing else is stored or read ---------------------------------------------------------------


def test_bars_with_problems_are_not_stored(tmp_path: Path, bars: Bars) -> None:
    store = DirectoryBlobStore(tmp_path)
    wrong = bars.copy()
    wrong.iloc[3, 1] = np.nan
    with pytest.raises(DataError, match=r"row 4 \(high nan\)"):
        write_snapshot(wrong, "EURUSD", "1h", store)
    with pytest.raises(DataError, match="there are no bars"):
        write_snapshot(bars.iloc[:0], "EURUSD", "1h", store)
    with pytest.raises(DataError, match="the columns of bars are"):
        write_snapshot(bars[["open"]], "EURUSD", "1h", store)
    assert list(store.entries()) == []


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    assert "No such file" in refusal(tmp_path / "missing")


@pytest.mark.parametrize(
    "content", [b"", b"PAR1", b"PAR1" * 10, b"x" * 1000, (DATA / "GOOGL_1d.csv").read_bytes()]
)
def test_what_is_not_parquet_is_refused(content: bytes, tmp_path: Path) -> None:
    assert refusal(content)
    (tmp_path / "file").write_bytes(content)
    assert str(tmp_path / "file") in refusal(tmp_path / "file")


def test_a_table_of_our_form_is_read(table: pa.Table, bars: Bars) -> None:
    # Otherwise the refusals below would prove nothing.
    pd.testing.assert_frame_equal(read_snapshot(parquet(table)), bars, check_exact=True)


def other_tables(table: pa.Table) -> dict[str, pa.Table]:
    schema = table.schema

    def replaced(name: str, kind: pa.DataType, nullable: bool = False) -> pa.Table:
        index = schema.get_field_index(name)
        return table.set_column(index, pa.field(name, kind, nullable=nullable), table[name].cast(kind))

    return {
        "missing column": table.drop_columns(["volume"]),
        "further column": table.append_column("extra", table["open"]),
        "other order": table.select(["timestamp", "close", "high", "low", "open", "volume"]),
        "other name": table.rename_columns(["time", *BAR_COLUMNS]),
        "other resolution": replaced("timestamp", pa.timestamp("ms", tz="UTC")),
        "no time zone": replaced("timestamp", pa.timestamp("us")),
        "numbers for times": replaced("timestamp", pa.int64()),
        "smaller floats": replaced("close", pa.float32()),
        "text": replaced("close", pa.string()),
        "nullable": replaced("close", pa.float64(), nullable=True),
        "metadata": table.replace_schema_metadata({"pandas": "{}"}),
    }


@pytest.mark.parametrize(
    "what",
    [
        "missing column",
        "further column",
        "other order",
        "other name",
        "other resolution",
        "no time zone",
        "numbers for times",
        "smaller floats",
        "text",
        "nullable",
        "metadata",
    ],
)
def test_another_schema_is_refused(table: pa.Table, what: str) -> None:
    assert "it has other columns" in refusal(
        parquet(other_tables(table)[what], store_schema=what == "metadata")
    )


@pytest.mark.parametrize("compression", ["zstd", "snappy", "gzip"])
def test_compressed_bars_are_refused(table: pa.Table, compression: str) -> None:
    assert "do not fit into its" in refusal(parquet(table, compression=compression))


def million_rows_in_little() -> bytes:
    """A million bars, alike but for their times, in some kilobytes."""
    opens = pa.array(np.arange(10**6) * 60_000_000).cast(pa.timestamp("us", tz="UTC"))
    ones = pa.array(np.ones(10**6))
    schema = pa.schema(
        [
            pa.field("timestamp", opens.type, nullable=False),
            *(pa.field(name, ones.type, nullable=False) for name in BAR_COLUMNS),
        ]
    )
    content = parquet(
        pa.Table.from_arrays([opens, *[ones] * 5], schema=schema),
        use_dictionary=list(BAR_COLUMNS),
        column_encoding={"timestamp": "DELTA_BINARY_PACKED"},
    )
    assert len(content) < 100_000
    return content


def test_more_bars_than_there_are_bytes_for_are_refused() -> None:
    assert "1,000,000 bars do not fit into its" in refusal(million_rows_in_little())


def test_a_file_that_lies_about_its_rows_is_refused() -> None:
    content = million_rows_in_little()
    # As the footer's variable-length integers: the first one is the file's own count.
    million, hundred = b"\x80\x89\x7a", b"\xc8\x81\x00"
    footer = len(content) - 8 - int.from_bytes(content[-8:-4], "little")
    lie = content[:footer] + content[footer:].replace(million, hundred, 1)
    assert pq.ParquetFile(io.BytesIO(lie)).metadata.num_rows == 100
    assert "1,000,000 bars do not fit into its" in refusal(lie)


def test_a_column_name_that_is_no_text_is_refused(snapshot: bytes) -> None:
    assert "is not a snapshot" in refusal(snapshot.replace(b"close", b"cl\xffse"))


def test_a_compression_that_does_not_exist_is_refused(table: pa.Table) -> None:
    # Asked for its name, Arrow 26 ends the process.
    content = bytearray(parquet(table))
    last_column = content.rindex(b"volume")
    codec = content.index(b"\x15\x00\x16", last_column)  # codec 0, then the number of values
    content[codec + 1] = 86
    assert "Unsupported compression codec" in refusal(bytes(content))


def test_bars_with_problems_are_not_read(table: pa.Table) -> None:
    wrong = table.set_column(5, table.schema.field(5), pa.array([-1.0] * len(table)))
    assert "negative volume" in refusal(parquet(wrong))
    assert "times out of order" in refusal(parquet(table.take(pa.array([0, 2, 1]))))
    assert "there are no bars" in refusal(parquet(table.slice(0, 0)))


@given(data=st.data())
def test_a_damaged_snapshot_is_refused_or_holds_sound_bars(data: st.DataObject, snapshot: bytes) -> None:
    damaged = bytearray(snapshot)
    footer = int.from_bytes(snapshot[-8:-4], "little") + 8
    # Half of the damage to the footer, which is small and decides everything.
    near_end = st.integers(len(snapshot) - footer, len(snapshot) - 1)
    for _ in range(data.draw(st.integers(1, 4))):
        position = data.draw(near_end | st.integers(0, len(snapshot) - 1))
        damaged[position] = data.draw(st.integers(0, 255))
    content = bytes(damaged[: data.draw(st.just(len(damaged)) | st.integers(0, len(damaged)))])
    try:
        bars = read_snapshot(content)
    except DataError:
        return
    assert np.isfinite(bars.to_numpy()).all()
    assert bars.index.is_monotonic_increasing
    assert bars.index.is_unique
