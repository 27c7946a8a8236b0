"""What is wrong with a CSV file of bars, line by line.

Slower than reading it (seconds for a million rows), so only done once it is known that something is.
"""

import re
from collections import defaultdict
from datetime import datetime
from pathlib import Path

import numpy as np

from ktrdr.errors import DataError
from ktrdr.market.bars import BAR_COLUMNS
from ktrdr.market.csv_layout import TIME_PATTERN, CsvLayout, csv_rows
from ktrdr.market.timeframe import Timeframe
from ktrdr.market.times import from_datetime
from ktrdr.market.validation import LISTED_EXAMPLES, NO_TIME, Finding, find_problems, refusal

_NUMBER = re.compile(r"\s*[+-]?((\d+\.?\d*|\.\d+)(e[+-]?\d+)?|nan|inf|infinity)\s*", re.ASCII | re.IGNORECASE)
_DIGITS = re.compile(r"\d{9,19}(\.\d*)?", re.ASCII)


def diagnose(path: Path, layout: CsvLayout, timeframe: Timeframe) -> DataError | None:
    """Return the error that lists everything wrong with the file by line; None if nothing is.

    Rows that cannot be read are left out when the others are checked against each other.
    """
    tally = Tally()
    lines: list[int] = []
    opens: list[int] = []
    values: list[list[float]] = []
    rows = csv_rows(path)
    next(rows)
    for line, row in rows:
        if len(row) != layout.width:
            tally.add("wrong number of fields", line, f"{len(row)} instead of {layout.width}")
            continue
        time_text = row[layout.columns.timestamp]
        time = _parse_time(time_text, layout.zoned)
        if isinstance(time, str):
            tally.add(time, line, repr(time_text[:40]))
        numbers = []
        for name, position in zip(BAR_COLUMNS, layout.columns.values, strict=True):
            number = _parse_number(row[position])
            if number is None:
                tally.add("text in place of a number", line, f"{name} {row[position][:40]!r}")
            else:
                numbers.append(number)
        if isinstance(time, int) and len(numbers) == len(BAR_COLUMNS):
            lines.append(line)
            opens.append(time)
            values.append(numbers)
    findings = tally.findings()
    if lines:
        findings += find_problems(
            np.array(opens, np.int64),
            np.array(values, np.float64),
            timeframe,
            lambda row: f"line {lines[row]}",
        )
    return refusal(str(path), findings) if findings else None


class Tally:
    """Counts problems by kind and keeps the first examples."""

    def __init__(self) -> None:
        self._counts: dict[str, int] = defaultdict(int)
        self._examples: dict[str, list[str]] = defaultdict(list)

    def add(self, what: str, line: int, detail: str) -> None:
        """Count a problem of this kind, on a line."""
        self._counts[what] += 1
        if self._counts[what] <= LISTED_EXAMPLES:
            self._examples[what].append(f"line {line} ({detail})")

    def findings(self) -> list[Finding]:
        """Return all kinds, in the order in which they were met."""
        return [Finding(what, count, tuple(self._examples[what])) for what, count in self._counts.items()]


def _parse_number(text: str) -> float | None:
    """Return the number, NaN for an empty field, None for text."""
    if not text.strip():
        return float("nan")
    return float(text) if _NUMBER.fullmatch(text) else None


def _parse_time(text: str, zoned: bool) -> int | str:
    """Return microseconds since 1970, `NO_TIME` for an empty field, or what is wrong."""
    if not text:
        return NO_TIME
    match = TIME_PATTERN.fullmatch(text)
    if match is None:
        if _DIGITS.fullmatch(text):
            return "seconds or milliseconds since 1970 in place of an ISO 8601 time"
        return "times that are not ISO 8601 (2017-01-31T22:00:00Z)"
    if zoned and match["zone"] is None:
        return "times without a time zone, which the first one has"
    if not zoned and match["zone"] is not None:
        return "times with a time zone, which the first one lacks"
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return "times that do not exist"
    return from_datetime(moment)
