"""Context for tests: series with times of their own, and files of them."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from ktrdr.market.context.series import ContextTable, plain_series
from ktrdr.market.times import to_microseconds


def known(times: Sequence[str], values: Sequence[float]) -> ContextTable:
    """Return a series of plain values that become known at these times, in UTC."""
    index = pd.DatetimeIndex([pd.Timestamp(time, tz="UTC") for time in times]).as_unit("us")
    return plain_series(to_microseconds(index), np.array(values, np.float64))


def when(table: ContextTable) -> list[str]:
    """Return when the rows became known, to the minute, in UTC."""
    return [f"{time:%Y-%m-%d %H:%M}" for time in table.index]


def closes(table: ContextTable) -> list[float]:
    """Return the values of a plain series."""
    return [float(value) for value in table["close"]]


def write(path: Path, *lines: str) -> Path:
    """Write a file of lines, and its directory."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")
    return path
