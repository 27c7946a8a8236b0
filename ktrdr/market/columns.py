"""Which column of a file is which, and bars from plain columns."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches

import numpy as np
import numpy.typing as npt
import pandas as pd

from ktrdr.errors import DataError
from ktrdr.market.bars import BAR_COLUMNS, Bars
from ktrdr.market.times import Int64Array, to_index

TIME_COLUMNS = ("timestamp", "datetime", "date", "time")
"""What the column of open times may be called, in any case."""

_FIX = f"A file of bars has the columns timestamp, {', '.join(BAR_COLUMNS)}; others are ignored."


@dataclass(frozen=True, slots=True)
class ColumnPositions:
    """Where in a file the columns of bars are, from 0."""

    timestamp: int
    values: tuple[int, ...]
    """In the order of `BAR_COLUMNS`."""


def find_columns(names: Sequence[str], source: str) -> ColumnPositions:
    """Return where the columns are, whatever their case and order.

    Raises:
        DataError: columns are missing (with the nearest names), double or ambiguous.
    """
    spellings = [name.strip().lower() for name in names]
    problems: list[str] = []
    positions: list[int] = []
    for wanted in BAR_COLUMNS:
        found = [i for i, spelling in enumerate(spellings) if spelling == wanted]
        if len(found) == 1:
            positions.append(found[0])
        elif found:
            problems.append(f"column '{wanted}' is there {len(found)} times")
        else:
            problems.append(_missing(wanted, names, spellings))
    timestamp = _find_timestamp(names, spellings, problems)
    if problems:
        shown = ", ".join(f"'{name}'" for name in names)
        raise DataError(f"{source}: {'; '.join(problems)}. Its columns are {shown}.", fix=_FIX)
    return ColumnPositions(timestamp, tuple(positions))


def make_bars(times: Int64Array, columns: Mapping[str, npt.NDArray[np.float64]]) -> Bars:
    """Return bars from open times (microseconds since 1970, UTC) and float64 columns; nothing is checked."""
    return pd.DataFrame({name: columns[name] for name in BAR_COLUMNS}, index=to_index(times))


def _find_timestamp(names: Sequence[str], spellings: Sequence[str], problems: list[str]) -> int:
    found = [i for i, spelling in enumerate(spellings) if spelling in TIME_COLUMNS]
    exact = [i for i in found if spellings[i] == "timestamp"]
    if len(found) == 1 or len(exact) == 1:
        return (exact or found)[0]
    if found:
        problems.append(
            f"{' and '.join(repr(names[i]) for i in found)} could each be the time of a bar; "
            "name the one that is the whole time 'timestamp'"
        )
    else:
        problems.append(_missing("timestamp", names, spellings))
    return -1


def _missing(wanted: str, names: Sequence[str], spellings: Sequence[str]) -> str:
    free = [spelling for spelling in spellings if spelling and spelling not in (*BAR_COLUMNS, *TIME_COLUMNS)]
    near = get_close_matches(wanted, free, n=1) or [s for s in free if wanted in s or s in wanted][:1]
    hint = f" (is it '{names[spellings.index(near[0])]}'?)" if near else ""
    return f"column '{wanted}' is missing{hint}"
