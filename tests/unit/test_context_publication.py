"""When reports of positions were published."""

from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ktrdr.errors import DataError
from ktrdr.market.context.publication import cot_publication
from ktrdr.market.times import to_datetime


def published(*report: int) -> str:
    return f"{to_datetime(int(cot_publication([date(*report)])[0])):%Y-%m-%d %H:%M}"


@pytest.mark.parametrize(
    ("report", "expected"),
    [
        ((2024, 1, 9), "2024-01-12 20:30"),  # winter in New York
        ((2024, 3, 5), "2024-03-08 20:30"),
        ((2024, 3, 12), "2024-03-15 19:30"),  # summer there, and not yet in Europe
        ((2024, 10, 29), "2024-11-01 19:30"),  # still summer there, and not any more in Europe
        ((2024, 11, 5), "2024-11-08 20:30"),
        ((2024, 1, 2), "2024-01-05 20:30"),  # a holiday before the report does not delay it
    ],
)
def test_a_report_of_tuesday_is_published_on_friday_afternoon_in_new_york(
    report: tuple[int, int, int], expected: str
) -> None:
    assert published(*report) == expected


@pytest.mark.parametrize(
    ("report", "real"),
    [
        # Dates with an asterisk in the CFTC's release schedule of 2024.
        ((2024, 6, 18), date(2024, 6, 24)),
        ((2024, 7, 2), date(2024, 7, 8)),
        ((2024, 11, 26), date(2024, 12, 2)),
        ((2024, 12, 24), date(2024, 12, 30)),
        # The first and the last of those that waited in 2019, and in 2025.
        ((2018, 12, 24), date(2019, 2, 1)),
        ((2019, 3, 5), date(2019, 3, 8)),
        ((2025, 9, 30), date(2025, 11, 19)),
        ((2025, 12, 23), date(2026, 1, 9)),
        ((2026, 1, 20), date(2026, 1, 23)),
    ],
)
def test_a_report_that_was_delayed_is_never_known_before_it_was_published(
    report: tuple[int, int, int], real: date
) -> None:
    assert published(*report) >= f"{real} 19:30"


def test_what_waited_for_the_end_of_a_lapse_is_known_at_its_end() -> None:
    assert published(2019, 1, 15) == "2019-03-08 20:30"
    assert published(2019, 3, 12) == "2019-03-15 19:30"


@given(st.dates(date(2001, 1, 1), date(2040, 1, 1)).filter(lambda day: day.weekday() == 1))
def test_a_report_is_known_three_to_seven_days_later_but_for_lapses(report: date) -> None:
    known = to_datetime(int(cot_publication([report])[0]))
    age = known - datetime.combine(report, datetime.min.time(), UTC)
    assert age > timedelta(days=3)
    in_lapse = any(first <= report <= last for first, last in LAPSES)
    assert in_lapse or age < timedelta(days=8)


LAPSES = (
    (date(2013, 10, 1), date(2013, 11, 5)),
    (date(2018, 12, 24), date(2019, 3, 5)),
    (date(2025, 9, 30), date(2026, 1, 20)),
)


def test_reports_from_before_the_weekly_schedule_are_refused() -> None:
    with pytest.raises(DataError, match="no weekly schedule before 2001"):
        published(2000, 1, 4)


def test_a_report_of_a_weekend_is_refused() -> None:
    with pytest.raises(DataError, match="2024-01-06, a Saturday; reports are of Tuesdays"):
        published(2024, 1, 6)
