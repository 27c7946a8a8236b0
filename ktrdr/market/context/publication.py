"""When what a date says became known."""

from collections.abc import Sequence
from datetime import date, datetime, time, timedelta
from functools import cache
from zoneinfo import ZoneInfo

import numpy as np
import numpy.typing as npt
from pandas.tseries.holiday import USFederalHolidayCalendar

from ktrdr.errors import DataError
from ktrdr.market.times import Int64Array, from_datetime

_NEW_YORK = ZoneInfo("America/New_York")
_DAY = timedelta(days=1)
_FRIDAY = 4

_COT_TIME = time(15, 30)
_COT_SCHEDULED_SINCE = date(2001, 1, 1)
"""Reports have been weekly since October 2000."""

_COT_LATE_DAYS = 2
"""Working days; "Federal holidays may delay release by one or two days" (cftc.gov, release schedule)."""

_CLOSED = (date(2004, 6, 11), date(2018, 12, 5), date(2025, 1, 9))
"""Days of mourning, on which federal offices were closed as on holidays."""

_COT_LAPSES = (
    # While the government had no money nothing was published, and what had waited came out bit by bit. Here
    # all of it counts as known when that was over (first and last report, day of publication).
    (date(2013, 10, 1), date(2013, 11, 5), date(2013, 11, 15)),  # over a week or so before
    (date(2018, 12, 24), date(2019, 3, 5), date(2019, 3, 8)),
    (date(2025, 9, 30), date(2026, 1, 20), date(2026, 1, 23)),
)


def midnight(day: date) -> int:
    """Return when a day begins in New York, where the agencies' days are, in microseconds since 1970."""
    return _at(day, time())


def end_of_day(day: date) -> int:
    """Return when a day is over in New York, in microseconds since 1970."""
    return midnight(day + _DAY)


def cot_publication(reports: Sequence[date]) -> Int64Array:
    """Return when Commitments of Traders with these dates were published by the CFTC's schedule.

    That is the Friday of the report's week, 15:30 in New York; two working days later if there was a federal
    holiday in between. Reports that had to wait for a lapse of federal funding count as known at its end.
    Nothing tells other delays, as by snow: who has the true times gives them.

    Raises:
        DataError: a report is older than the schedule, or dated on a weekend.
    """
    return np.array([_cot_publication(report) for report in reports], np.int64)


def _cot_publication(report: date) -> int:
    if report < _COT_SCHEDULED_SINCE:
        raise DataError(
            f"When the report of {report} was published is not known: "
            f"there is no weekly schedule before {_COT_SCHEDULED_SINCE.year}.",
            fix="Add a column 'published', or leave out the rows.",
        )
    for first, last, over in _COT_LAPSES:
        if first <= report <= last:
            return _at(over, _COT_TIME)
    friday = report + (_FRIDAY - report.weekday()) * _DAY
    if friday < report:
        raise DataError(
            f"A report is dated {report}, a {report:%A}; reports are of Tuesdays.",
            fix="Date it as the CFTC does, or add a column 'published'.",
        )
    closed = _closed_days()
    after, until = np.datetime64(report, "D"), np.datetime64(friday, "D")
    if ((closed > after) & (closed <= until)).any():
        late = np.busday_offset(friday, _COT_LATE_DAYS, roll="backward", holidays=closed)
        return _at(late.astype(object), _COT_TIME)
    return _at(friday, _COT_TIME)


@cache
def _closed_days() -> npt.NDArray[np.datetime64]:
    holidays = USFederalHolidayCalendar().holidays(str(_COT_SCHEDULED_SINCE), "2100-12-31")
    return np.concatenate([np.asarray(holidays, "M8[D]"), np.array(_CLOSED, "M8[D]")])


def _at(day: date, moment: time) -> int:
    return from_datetime(datetime.combine(day, moment, _NEW_YORK))
