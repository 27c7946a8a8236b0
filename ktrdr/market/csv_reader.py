"""Bars from CSV.

Times are ISO 8601 (``2017-01-01``, ``2017-01-01 22:00``, ``2017-01-01T22:00:00.5Z``, ``…+02:00``), all with a
zone or all without one; those without are UTC. Numbers since 1970 are refused: whether they are seconds or
milliseconds would be a guess.
"""

import csv
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv

from ktrdr.errors import DataError
from ktrdr.market.bars import BAR_COLUMNS, Bars
from ktrdr.market.columns import make_bars
from ktrdr.market.csv_diagnosis import diagnose
from ktrdr.market.csv_layout import CsvLayout, read_layout
from ktrdr.market.timeframe import Timeframe
from ktrdr.market.times import to_microseconds
from ktrdr.market.validation import NO_TIME, find_problems, refusal, row_number


def read_csv(path: Path, timeframe: Timeframe) -> Bars:
    """Return the bars of a CSV file with a header, checked as by `validate`.

    Raises:
        DataError: the file cannot be read, lacks columns, or has problems, which are listed by line.
    """
    try:
        layout = read_layout(path)
        try:
            bars = _read(path, layout)
        except pa.ArrowException as error:
            raise diagnose(path, layout, timeframe) or DataError(f"{path}: {error}") from error
        opens = to_microseconds(bars.index)
        findings = find_problems(opens, bars.to_numpy(np.float64), timeframe, row_number)
        if findings:
            raise diagnose(path, layout, timeframe) or refusal(str(path), findings)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}.") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text.", fix="Save it as CSV in UTF-8.") from error
    except csv.Error as error:
        raise DataError(f"{path} is not CSV: {error}.") from error
    return bars


def _read(path: Path, layout: CsvLayout) -> Bars:
    # Columns go by number: names may be double among those that are not needed.
    names = [str(position) for position in range(layout.width)]
    time_name = names[layout.columns.timestamp]
    value_names = [names[position] for position in layout.columns.values]
    table = pa.csv.read_csv(
        path,
        read_options=pa.csv.ReadOptions(column_names=names, skip_rows=layout.header_lines),
        convert_options=pa.csv.ConvertOptions(
            include_columns=[time_name, *value_names],
            column_types={
                time_name: pa.timestamp("us", tz="UTC" if layout.zoned else None),
                **dict.fromkeys(value_names, pa.float64()),
            },
            # An empty field is a missing value, to be found by the checks; any other text is an error.
            null_values=[""],
        ),
    )
    opens = table[time_name].cast(pa.int64()).fill_null(NO_TIME).to_numpy()
    values = [table[name].to_numpy() for name in value_names]
    return make_bars(opens, dict(zip(BAR_COLUMNS, values, strict=True)))
