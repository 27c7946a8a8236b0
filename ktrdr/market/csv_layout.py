"""How a CSV file of bars is laid out, read from its first lines."""

import csv
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ktrdr.errors import DataError
from ktrdr.market.columns import ColumnPositions, find_columns

# What Arrow's parser takes for a time, so that both ways of reading a file agree.
TIME_PATTERN = re.compile(
    r"\d{4}-\d\d-\d\d([ T]\d\d(:\d\d(:\d\d(\.\d{1,6})?)?)?(?P<zone>Z|[+-]\d\d(:?\d\d)?)?)?", re.ASCII
)
"""ISO 8601 with ``-`` and ``:``, of any precision down to a microsecond."""


@dataclass(frozen=True, slots=True)
class CsvLayout:
    """Where the columns are, and how times are written."""

    columns: ColumnPositions
    width: int
    """Fields per row."""
    header_lines: int
    """Lines up to the end of the header."""
    zoned: bool
    """Whether the first time that is one has a time zone: then all must have one, otherwise none."""


def read_layout(path: Path) -> CsvLayout:
    """Return the layout of a file.

    Raises:
        DataError: it has no bars, lacks columns, or is separated by something else than commas.
        OSError, UnicodeDecodeError, csv.Error: it cannot be read as CSV.
    """
    rows = csv_rows(path)
    header_line, header = next(rows, (0, []))
    if not header:
        raise DataError(f"{path} is empty.")
    if len(header) == 1:
        for separator, name in ((";", "semicolons"), ("\t", "tabs"), ("|", "bars")):
            if separator in header[0]:
                raise DataError(f"{path}: fields must be separated by commas, not by {name}.")
    columns = find_columns(header, str(path))
    row = None
    for _, row in rows:
        time = TIME_PATTERN.fullmatch(row[columns.timestamp]) if columns.timestamp < len(row) else None
        if time is not None:
            return CsvLayout(columns, len(header), header_line, zoned=time["zone"] is not None)
    if row is None:
        raise DataError(f"{path} has a header but no bars.")
    return CsvLayout(columns, len(header), header_line, zoned=False)


def csv_rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield each row that is not blank, the header too, with the number of its last line, from 1."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file)
        for row in reader:
            if row:
                yield reader.line_num, row
