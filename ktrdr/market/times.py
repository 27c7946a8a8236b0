"""Bar times as integers: microseconds since 1970 in UTC, the resolution of bars and snapshots."""

from datetime import UTC, datetime, timedelta
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import pandas as pd

from ktrdr.errors import DataError

Int64Array: TypeAlias = npt.NDArray[np.int64]

MICROSECONDS_PER_DAY = 86_400_000_000
FIRST_MONDAY = 4 * MICROSECONDS_PER_DAY
"""1970-01-05 00:00, from which weeks are counted."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def to_microseconds(index: pd.Index) -> Int64Array:
    """Return the times of an aware `DatetimeIndex` of any resolution; finer parts are cut off.

    Raises:
        DataError: it is not a `DatetimeIndex`, or has no time zone.
    """
    if not isinstance(index, pd.DatetimeIndex):
        raise DataError(f"Bars must be indexed by time, not by {index.dtype}.")
    if index.tz is None:
        raise DataError("Bar times must have a time zone.", fix="Use `index.tz_localize('UTC')`.")
    return index.as_unit("us").asi8


def to_index(microseconds: Int64Array) -> pd.DatetimeIndex:
    """Return the times as a `DatetimeIndex` named ``timestamp``, in UTC, of microsecond resolution."""
    return pd.DatetimeIndex(microseconds.view("M8[us]"), name="timestamp").tz_localize(UTC)


def to_datetime(microseconds: int) -> datetime:
    """Return one time as an aware datetime in UTC."""
    return pd.Timestamp(int(microseconds), unit="us", tz=UTC).to_pydatetime()


def from_datetime(moment: datetime) -> int:
    """Return a time as microseconds since 1970; one without a zone is UTC."""
    return ((moment if moment.tzinfo else moment.replace(tzinfo=UTC)) - _EPOCH) // _MICROSECOND


def describe_time(microseconds: int) -> str:
    """Return one time for people: ``2017-12-25 07:00``, with seconds only where there are some."""
    moment = np.datetime64(int(microseconds), "us")
    whole_minutes = microseconds % 60_000_000 == 0
    return str(moment.astype("M8[m]") if whole_minutes else moment).replace("T", " ")
