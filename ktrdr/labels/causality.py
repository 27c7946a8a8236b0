"""Whether a label is known when its source says so: no bar after that may change it."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from ktrdr.errors import DataError
from ktrdr.labels.base import FloatArray, IntArray, Labels, LabelSource, as_table
from ktrdr.market.bars import Bars


@dataclass(frozen=True, slots=True)
class LabelLeak:
    """A label that is changed by bars after the one at which it is said to be known."""

    time: pd.Timestamp
    """Open time of the labelled bar."""
    known_at: pd.Timestamp
    """Open time of the bar at whose close the label is said to be known."""
    change: str
    """What becomes of it."""

    def __str__(self) -> str:
        return (
            f"The label of the bar of {self.time.isoformat()} is said to be known at the close of the bar of "
            f"{self.known_at.isoformat()}, but with other bars after that {self.change}."
        )


def find_label_leak(
    source: LabelSource, bars: Bars, check: Callable[[], None], *, cuts: int = 20, seed: int = 0
) -> LabelLeak | None:
    """Label bars with several futures; return the first label that knew of its future, or None.

    A label's class or value, its presence, the bar at which it is known, and its weight in proportion to
    those of others: none may depend on bars after ``known_at``. Bars that end there may lack the label, but
    must not give another.

    Args:
        source: any, also of a plug-in.
        bars: some thousands; each cut labels them three times.
        check: called at least every 50 ms of work, as by `LabelSource.compute`.
        cuts: how many bars to change the future of, spread over the labels.
        seed: of the changed futures.

    Raises:
        DataError: the bars cannot be labelled as they are.
    """
    rng = np.random.default_rng(seed)
    whole = source.compute(bars, check)
    ends = np.unique(bars.index.get_indexer(whole.known_at))
    ends = ends[(ends >= 0) & (ends < len(bars) - 1)]
    spread = np.unique(np.linspace(0, len(ends) - 1, min(cuts, len(ends))).astype(np.int64))
    for cut in ends[spread].tolist():
        for changed in (_mirrored(bars, cut), _rougher(bars, cut, rng)):
            if leak := _compare(source, whole, changed, bars.index[cut], check):
                return leak
        if leak := _compare_ended(source, whole, bars.iloc[: cut + 1], check):
            return leak
    return None


def _compare(
    source: LabelSource, whole: Labels, changed: Bars, cut: pd.Timestamp, check: Callable[[], None]
) -> LabelLeak | None:
    """Compare what is known by the cut, which must be the same with other bars after it."""
    before = as_table(whole)
    before = before[before["known_at"] <= cut]
    try:
        after = as_table(source.compute(changed, check))
    except DataError as error:
        return _leak(before, -1, f"there is none ({error})")
    after = after[after["known_at"] <= cut]
    if leak := _first_difference(source, before, after, gone="it is gone"):
        return leak
    extra = after.index.difference(before.index)
    if len(extra):
        return _leak(after.loc[extra], 0, "it is not there")
    if whole.weights is not None:
        shares, others = (table["weight"] / table["weight"].mean() for table in (before, after))
        different = ~np.isclose(shares, others, rtol=1e-6, atol=0, equal_nan=True)
        if different.any():
            first = int(different.argmax())
            return LabelLeak(
                before.index[first],
                before["known_at"].iloc[first],
                "it has another weight among those known by then",
            )
    return None


def _compare_ended(
    source: LabelSource, whole: Labels, ended: Bars, check: Callable[[], None]
) -> LabelLeak | None:
    """Compare what bars that end give, which must not be otherwise when more of them come."""
    try:
        before = as_table(source.compute(ended, check))
    except DataError:  # too few, as can be
        return None
    return _first_difference(source, before, as_table(whole), gone="it is not there")


def _first_difference(
    source: LabelSource, before: pd.DataFrame, after: pd.DataFrame, *, gone: str
) -> LabelLeak | None:
    """Return the first label of a table that is not in another, or not the same there."""
    after = after.reindex(before.index)
    missing = after["known_at"].isna().to_numpy()
    close = np.isclose(before["value"], after["value"], rtol=1e-5, atol=0, equal_nan=True)
    different = missing | ~close | (before["known_at"] != after["known_at"]).to_numpy()
    if not different.any():
        return None
    at = int(different.argmax())
    if missing[at]:
        change = gone
    elif not close[at]:
        names = [_name(source, table["value"].iloc[at]) for table in (before, after)]
        change = f"it is {names[1]} instead of {names[0]}"
    else:
        change = f"it is known at that of {after['known_at'].iloc[at].isoformat()}"
    return _leak(before, at, change)


def _leak(table: pd.DataFrame, at: int, change: str) -> LabelLeak:
    times, known_at = pd.DatetimeIndex(table.index), pd.DatetimeIndex(table["known_at"])
    return LabelLeak(times[at], known_at[at], change)


def _name(source: LabelSource, value: float) -> str:
    return source.classes[int(value)] if 0 <= value < len(source.classes) else f"{value:.6g}"


def _mirrored(bars: Bars, cut: int) -> Bars:
    """Return bars that fall after a cut where they rose, by as much."""
    logs = _logs(bars)
    return _continued(bars, cut, logs[cut, -1] - logs[cut + 1 :], np.arange(cut + 1, len(bars)))


def _rougher(bars: Bars, cut: int, rng: np.random.Generator) -> Bars:
    """Return bars that come in another order after a cut and move three times as far."""
    logs = _logs(bars)
    order = cut + 1 + rng.permutation(len(bars) - cut - 1)
    steps = 3 * (logs[order] - logs[order - 1, -1:])  # of each price from the close before
    begin = np.concatenate(([0.0], np.cumsum(steps[:-1, -1])))
    return _continued(bars, cut, steps + begin[:, None], order)


def _logs(bars: Bars) -> FloatArray:
    logs: FloatArray = np.log(bars[["open", "high", "low", "close"]].to_numpy(dtype=np.float64))
    return logs


def _continued(bars: Bars, cut: int, moves: FloatArray, volumes: IntArray) -> Bars:
    """Return bars whose future is given by logarithmic moves (bar, price) from the close at the cut.

    Each takes the volume of another bar, by number.
    """
    future = bars["close"].iloc[cut] * np.exp(np.clip(moves, -200, 200))
    columns = {
        "open": future[:, 0],
        "high": future.max(axis=1),
        "low": future.min(axis=1),
        "close": future[:, 3],
        "volume": bars["volume"].to_numpy()[volumes],
    }
    return pd.DataFrame(
        {
            name: np.concatenate((bars[name].to_numpy()[: cut + 1], values))
            for name, values in columns.items()
        },
        index=bars.index,
    )
