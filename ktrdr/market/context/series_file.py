"""Series of values from CSV: a date, a value, and when it was published, if the file knows."""

import csv
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, time
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ktrdr.errors import DataError
from ktrdr.market.context.publication import end_of_day
from ktrdr.market.csv_diagnosis import Tally
from ktrdr.market.csv_layout import TIME_PATTERN, csv_rows
from ktrdr.market.times import Int64Array, from_datetime
from ktrdr.market.validation import refusal

_DATE_NAMES = ("date", "observation_date", "report_date", "")
"""The last is how pandas writes an index without a name."""
_PUBLISHED_NAMES = ("published", "realtime_start")
"""The second is ALFRED's: since when that was the value."""
_NO_VALUE = ("", ".")
"""The second is FRED's for a day without a value, as a holiday."""

_DATE = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)


@dataclass(frozen=True, slots=True)
class Observations:
    """What a file has: one value per date, as it was published first."""

    dates: tuple[date, ...]
    """Increasing."""
    values: npt.NDArray[np.float64]
    published: Int64Array | None
    """When each became known, in microseconds since 1970; None if the file has no such column."""
    without_value: int
    restated: int
    """Later values of the same dates, which are left out."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What was left out, for people."""
        counted = (
            (self.without_value, "days without a value"),
            (self.restated, "later restatements, of which none counts"),
        )
        return tuple(f"{what}: {count:,}" for count, what in counted if count)


@dataclass(frozen=True, slots=True)
class _Columns:
    date: int
    value: int
    published: int | None
    width: int


def read_observations(path: Path, value_names: Sequence[str]) -> Observations:
    """Return what is in a CSV file with a header.

    The columns are a date (``date``, ``observation_date``, ``report_date``), the value, and optionally
    ``published`` (or ``realtime_start``): an ISO 8601 time, UTC if it has no zone, or a date, by whose end in
    New York the value is known. Rows are in the order of their dates; one whose value is empty or ``.`` has
    none. A date may be there more than once if each later row was published later: a restated value.

    Args:
        path: the file.
        value_names: what the column of values may be called, in lower case.

    Raises:
        DataError: the file cannot be read, lacks columns, or has problems, which are listed by line.
    """
    try:
        return _read(path, value_names)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}.") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text.", fix="Save it as CSV in UTF-8.") from error
    except csv.Error as error:
        raise DataError(f"{path} is not CSV: {error}.") from error


def _read(path: Path, value_names: Sequence[str]) -> Observations:
    rows = csv_rows(path)
    _, header = next(rows, (0, []))
    if not header:
        raise DataError(f"{path} is empty.")
    columns = _find(header, value_names, path)
    reading = _Reading(columns)
    for line, row in rows:
        reading.add(line, row)
    findings = reading.tally.findings()
    if findings:
        raise refusal(str(path), findings)
    if not reading.dates:
        raise DataError(f"{path} has a header but no values.")
    return Observations(
        dates=tuple(reading.dates),
        values=np.array(reading.values, np.float64),
        published=None if columns.published is None else np.array(reading.published, np.int64),
        without_value=reading.without_value,
        restated=reading.restated,
    )


def _find(header: Sequence[str], value_names: Sequence[str], path: Path) -> _Columns:
    spellings = [name.strip().lower() for name in header]

    def position(names: Sequence[str]) -> int | None:
        return next((spellings.index(name) for name in names if name in spellings), None)

    day, value = position(_DATE_NAMES), position(value_names)
    if day is None or value is None:
        lacking = "a column 'date'" if day is None else f"a column of values ({', '.join(value_names)})"
        raise DataError(
            f"{path} lacks {lacking}. Its columns are {', '.join(map(repr, header))}.",
            fix="A file of a series has the columns date, value and, if it is to say so, published.",
        )
    return _Columns(day, value, position(_PUBLISHED_NAMES), len(header))


class _Reading:
    """Takes row by row, and finds what is wrong with each and between them."""

    def __init__(self, columns: _Columns) -> None:
        self._columns = columns
        self._last_line = 0
        self._last_published = 0
        self.tally = Tally()
        self.dates: list[date] = []
        self.values: list[float] = []
        self.published: list[int] = []
        self.without_value = 0
        self.restated = 0

    def add(self, line: int, row: list[str]) -> None:
        columns = self._columns
        if len(row) != columns.width:
            self.tally.add("wrong number of fields", line, f"{len(row)} instead of {columns.width}")
            return
        day = _parse_date(row[columns.date].strip())
        if day is None:
            self.tally.add("dates that are not ISO 8601 (2017-01-31)", line, repr(row[columns.date][:40]))
            return
        text = row[columns.value].strip()
        if text in _NO_VALUE:
            self.without_value += 1
            return
        value = self._number(line, text)
        published = self._publication(line, row, day)
        if value is not None and published is not None:
            self._take(line, day, value, published)

    def _number(self, line: int, text: str) -> float | None:
        try:
            value = float(text)
        except ValueError:
            self.tally.add("text in place of a number", line, repr(text[:40]))
            return None
        if not math.isfinite(value):
            self.tally.add("infinite values or none", line, text[:40])
            return None
        return value

    def _publication(self, line: int, row: list[str], day: date) -> int | None:
        """Return when the row was published; 0 where that is not known."""
        if self._columns.published is None:
            return 0
        text = row[self._columns.published].strip()
        published = _parse_moment(text)
        if published is None:
            what = "publication times that are not ISO 8601" if text else "missing publication times"
            self.tally.add(what, line, repr(text[:40]))
            return None
        published_on = _parse_date(text)
        if published_on < day if published_on else published < from_datetime(datetime.combine(day, time())):
            self.tally.add("values published before their date", line, f"{text} for {day}")
            return None
        return published

    def _take(self, line: int, day: date, value: float, published: int) -> None:
        if self.dates and day < self.dates[-1]:
            self.tally.add("dates out of order", line, f"{day} comes after {self.dates[-1]}")
            return
        if self.dates and day == self.dates[-1]:
            if published <= self._last_published:
                self.tally.add("double dates", line, f"{day} is on line {self._last_line} too")
            else:
                self.restated += 1
                self._last_published = published
            return
        self.dates.append(day)
        self.values.append(value)
        self.published.append(published)
        self._last_line, self._last_published = line, published


def _parse_date(text: str) -> date | None:
    if not _DATE.fullmatch(text):
        return None
    try:
        return date.fromisoformat(text)
    except ValueError:
        return None


def _parse_moment(text: str) -> int | None:
    if (day := _parse_date(text)) is not None:
        return end_of_day(day)
    if not TIME_PATTERN.fullmatch(text):
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return from_datetime(moment)
