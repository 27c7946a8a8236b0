"""Series as they were known at a time, against the plainest definition: what had been published by then."""

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ktrdr.market.context import ContextTable, CotContext, FredContext, known_rows
from ktrdr.market.times import to_microseconds
from tests.unit.context_cases import write

FIRST = date(2024, 1, 1)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)
AFTER_TIES = timedelta(milliseconds=1)
"""Values that were published together are microseconds apart."""


class Row(NamedTuple):
    """A line of a file."""

    date: date
    value: float
    published: datetime


@st.composite
def files(draw: st.DrawFn, most: int = 12) -> list[Row]:
    """Rows in the order of their dates, published at any time after, some together and some restated."""
    rows: list[Row] = []
    for number in range(draw(st.integers(1, most))):
        day = FIRST + number * timedelta(days=1)
        hours = sorted(draw(st.sets(st.integers(0, 96), min_size=1, max_size=2)))
        midnight = datetime.combine(day, datetime.min.time(), UTC)
        rows += [Row(day, draw(st.integers(-50, 50)), midnight + hour * HOUR) for hour in hours]
    return rows


times = st.integers(-24, 20 * 24).map(
    lambda hours: datetime.combine(FIRST, datetime.min.time(), UTC) + hours * HOUR + AFTER_TIES
)


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


def read(directory: Path, rows: Sequence[Row], name: str = "A") -> ContextTable:
    put(directory / "fred" / f"{name}.csv", rows)
    return FredContext((name,)).read(f"fred_{name}", directory).table


def put(path: Path, rows: Sequence[Row]) -> None:
    lines = [f"{row.date},{row.value},{row.published.isoformat()}" for row in rows]
    write(path, "date,value,published", *lines)


def seen(table: ContextTable, now: datetime) -> float | None:
    """Return what a feature of the series would see."""
    moment = np.array([(now - EPOCH) // timedelta(microseconds=1)], np.int64)
    row = int(known_rows(to_microseconds(table.index), moment)[0])
    return None if row < 0 else float(table["close"].iloc[row])


def firsts(rows: Sequence[Row]) -> list[Row]:
    """Return the row of each date that was published first."""
    return [row for number, row in enumerate(rows) if number == 0 or rows[number - 1].date != row.date]


def looked_up(rows: Sequence[Row], now: datetime) -> float | None:
    """Return the value of the latest date of which one had been published."""
    there = [row.value for row in firsts(rows) if row.published <= now]
    return there[-1] if there else None


@given(rows=files(), now=times)
def test_what_is_seen_is_the_first_value_of_the_latest_date_that_was_published(
    directory: Path, rows: list[Row], now: datetime
) -> None:
    assert seen(read(directory, rows), now) == looked_up(rows, now)


@given(first=files(), second=files(), now=times)
def test_a_spread_is_the_difference_of_what_is_seen_of_both(
    directory: Path, first: list[Row], second: list[Row], now: datetime
) -> None:
    read(directory, first, "A")
    read(directory, second, "B")
    spread = FredContext(("A", "B")).read("yield_spread_A_B", directory).table
    values = looked_up(first, now), looked_up(second, now)
    expected = None if values[0] is None or values[1] is None else values[0] - values[1]
    assert seen(spread, now) == expected


@given(rows=files(), others=st.lists(st.integers(-999, 999), min_size=24, max_size=24), now=times)
def test_rows_that_were_published_later_change_nothing_whatever_they_say(
    directory: Path, rows: list[Row], others: list[int], now: datetime
) -> None:
    before = known_by(read(directory, rows), now)
    scrambled = [
        row._replace(value=other) if row.published > now else row
        for row, other in zip(rows, others, strict=False)
    ]
    assert known_by(read(directory, scrambled), now) == before
    published = [row for row in rows if row.published <= now]
    assert (known_by(read(directory, published), now) if published else []) == before


def known_by(table: ContextTable, now: datetime) -> list[tuple[datetime, float]]:
    """Return when each row became known, and its value, of those that are known."""
    return [(time, value) for time, value in zip(table.index, table["close"], strict=True) if time <= now]


@settings(max_examples=10)
@given(values=st.lists(st.integers(-20, 20), min_size=55, max_size=60), cut=st.integers(52, 54))
def test_a_rank_depends_on_the_reports_so_far_alone(directory: Path, values: list[int], cut: int) -> None:
    path = directory / "cot" / "X.csv"
    tuesdays = [date(2024, 1, 2) + number * timedelta(days=7) for number in range(len(values))]

    def ranks(count: int) -> list[float]:
        reports = zip(tuesdays, values[:count], strict=False)
        write(path, "date,value", *(f"{day},{value}" for day, value in reports))
        return list(CotContext("X").read("cot_X_net_pct", directory).table["close"])

    whole = ranks(len(values))
    assert ranks(cut) == whole[: cut - 51]
    expected = [
        100 * sum(other < values[last] for other in values[last - 51 : last]) / 51
        for last in range(51, len(values))
    ]
    assert whole == expected
