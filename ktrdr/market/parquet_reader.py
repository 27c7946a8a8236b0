"""Bars from Parquet files as others write them; `snapshot` reads our own."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ktrdr.errors import DataError
from ktrdr.market.bars import BAR_COLUMNS, Bars
from ktrdr.market.columns import find_columns, make_bars
from ktrdr.market.timeframe import Timeframe
from ktrdr.market.times import Int64Array, to_microseconds
from ktrdr.market.validation import NO_TIME, find_problems, refusal, row_number


def read_parquet(path: Path, timeframe: Timeframe) -> Bars:
    """Return the bars of a Parquet file, checked as by `validate`.

    Columns are found as in CSV files. The time may be a date or a timestamp, with or without a zone (then
    UTC); one that is finer than a microsecond is refused. The others may be any number.

    Raises:
        DataError: the file cannot be read, lacks columns, or has problems, which are listed by row.
    """
    source = str(path)
    try:
        file = pq.ParquetFile(path)
        schema = file.schema_arrow
        positions = find_columns(schema.names, source)
        names = [schema.names[position] for position in (positions.timestamp, *positions.values)]
        table = file.read(columns=names)
        opens = _times(table.column(names[0]), source)
        values = [_numbers(table.column(name), name, source) for name in names[1:]]
    except OSError as error:
        raise DataError(f"{source} cannot be read: {error.strerror or error}.") from error
    except (pa.ArrowException, UnicodeDecodeError) as error:
        raise DataError(f"{source} cannot be read as Parquet: {error}") from error
    if not len(opens):
        raise DataError(f"{source} has no bars.")
    bars = make_bars(opens, dict(zip(BAR_COLUMNS, values, strict=True)))
    findings = find_problems(to_microseconds(bars.index), bars.to_numpy(np.float64), timeframe, row_number)
    if findings:
        raise refusal(source, findings)
    return bars


def _times(column: pa.ChunkedArray, source: str) -> Int64Array:
    if not (pa.types.is_timestamp(column.type) or pa.types.is_date(column.type)):
        raise DataError(f"{source}: its times are stored as {column.type}.", fix="Store them as timestamps.")
    times: Int64Array = column.cast(pa.timestamp("us")).cast(pa.int64()).fill_null(NO_TIME).to_numpy()
    return times


def _numbers(column: pa.ChunkedArray, name: str, source: str) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    kind = column.type
    if not (pa.types.is_floating(kind) or pa.types.is_integer(kind) or pa.types.is_decimal(kind)):
        raise DataError(f"{source}: column '{name}' is stored as {kind}.", fix="Store it as numbers.")
    values: np.ndarray[tuple[int], np.dtype[np.float64]] = column.cast(pa.float64()).to_numpy()
    return values
