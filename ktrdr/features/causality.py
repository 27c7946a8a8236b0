"""Does a computation look into the future? Found out by taking the future away, and by making up another.

What a training learns from a value that later bars decide looks splendid, and is worth nothing on the day.
So whatever becomes an input of a network is tried: it is computed again from the bars up to some bar alone,
and once more with other bars after that one. A value at or before it that is not the same has seen them.
Of all features of a strategy at once, see `ktrdr.features.feature_causality`.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
import pandas as pd

from ktrdr.features.indicators import Indicator
from ktrdr.features.memberships import Membership
from ktrdr.features.normalization import ScalingMethod, fit_scaling
from ktrdr.market.bars import Bars

FloatArray: TypeAlias = npt.NDArray[np.float64]
Array: TypeAlias = npt.NDArray[np.floating[Any]]
Computation: TypeAlias = Callable[[Bars], Mapping[str, FloatArray]]
"""From bars to arrays by name, each with one value per bar; what `Indicator.compute` is."""

TOLERANCE = 1e-9
"""Relative to the largest number of an output up to the cut: a smaller difference is none.

What runs from bar to bar, and every indicator here, gives the same to the last bit. What sums by blocks or by
Fourier transforms may round differently when there are fewer bars. Features are float32, whose own steps are
sixty times as large, so that nothing that a network could see passes below it.
"""


@dataclass(frozen=True, slots=True)
class Leak:
    """A value that became another one though only later bars did."""

    output: str
    """Which array; the empty string for an indicator with one output."""
    bar: int
    """The first bar whose value changed, from 0."""
    cut: int
    """How many bars, from the first, were left as they were."""
    future: Literal["removed", "replaced"]
    """What was done to the bars after them."""
    before: float
    """Value with the bars as they were."""
    after: float
    """Value without, or with other, bars from ``cut`` on."""

    @property
    def reach_bars(self) -> int:
        """How far ahead the value looks, at least."""
        return self.cut - self.bar

    def __str__(self) -> str:
        of = f" of '{self.output}'" if self.output else ""
        return (
            f"The value{of} at bar {self.bar} looks at least {self.reach_bars} "
            f"{'bar' if self.reach_bars == 1 else 'bars'} ahead: it is {self.before:g}, "
            f"and {self.after:g} with the bars from {self.cut} on {self.future}."
        )


class Trial(NamedTuple):
    """What was computed with another future."""

    cut: int
    """Bars that were left as they were."""
    future: Literal["removed", "replaced"]
    outputs: Mapping[str, Array]


def find_leaks(
    compute: Computation,
    bars: Bars,
    cuts: Sequence[int],
    *,
    seed: int = 0,
    tolerance: float = TOLERANCE,
) -> tuple[Leak, ...]:
    """Return, for each output that looks ahead, the earliest bar at which it was caught.

    One that looks ahead only now and then is caught only if a cut is where it does: more cuts catch more.

    Args:
        compute: must give the same for the same bars, and one value per bar even where there are few.
        bars: or any other table of numbers that it takes.
        cuts: numbers of bars that are kept, each between 1 and one less than there are. See `spread_cuts`.
        seed: of the bars that replace the later ones.
        tolerance: see `TOLERANCE`; 0 asks for the same to the last bit.
    """
    random = np.random.default_rng(seed)

    def trials() -> Iterator[Trial]:
        for cut in sorted(set(cuts)):
            if not 0 < cut < len(bars):
                raise ValueError(f"a cut must be between 1 and {len(bars) - 1}, not {cut}")
            yield Trial(cut, "removed", compute(bars.iloc[:cut].copy()))
            yield Trial(cut, "replaced", compute(with_another_future(bars, cut, random)))

    return earliest_leaks(compute(bars.copy()), trials(), tolerance)


def earliest_leaks(whole: Mapping[str, Array], trials: Iterable[Trial], tolerance: float) -> tuple[Leak, ...]:
    """Return, for each output that differs between the whole and a trial before its cut, the first bar."""
    earliest: dict[str, Leak] = {}
    for cut, future, again in trials:
        for output, values in whole.items():
            bar = _first_difference(values[:cut], again[output][:cut], tolerance)
            if bar is not None and (output not in earliest or bar < earliest[output].bar):
                before, after = float(values[bar]), float(again[output][bar])
                earliest[output] = Leak(output, bar, cut, future, before, after)
    return tuple(earliest.values())


def spread_cuts(first: int, bars: int, *, seed: int = 0, count: int = 8) -> tuple[int, ...]:
    """Return where to cut: right after the first value, before the last bar, and by chance in between.

    By chance, so that what looks to the end of an hour, a day or a block is not cut at its ends alone.

    Args:
        first: bars that a first value needs, such as `Indicator.warmup_bars` and one more.
        bars: how many there are; there must be more than ``first``.
        seed: of the chance.
        count: how many at most.
    """
    if not 0 < first < bars:
        raise ValueError(f"a first value from {first} bars needs more than that, but there are {bars}")
    between = np.random.default_rng(seed).integers(first, bars, max(count - 2, 0))
    return tuple(sorted({first, bars - 1, *between.tolist()}))


def indicator_leaks(
    indicator: Indicator, bars: Bars, *, seed: int = 0, count: int = 8, tolerance: float = TOLERANCE
) -> tuple[Leak, ...]:
    """Return where an indicator looks ahead, as `find_leaks`.

    Args:
        indicator: without faults (`ktrdr.features.contract`).
        bars: more than its warm-up and one.
        seed: of cuts and of other bars.
        count: of cuts, at most.
        tolerance: see `TOLERANCE`.
    """
    cuts = spread_cuts(indicator.warmup_bars + 1, len(bars), seed=seed, count=count)
    return find_leaks(indicator.compute, bars, cuts, seed=seed, tolerance=tolerance)


def membership_leaks(
    membership: Membership, values: FloatArray, *, seed: int = 0, count: int = 8, tolerance: float = TOLERANCE
) -> tuple[Leak, ...]:
    """Return where a membership's degrees depend on later values, as `find_leaks`.

    Args:
        membership: which.
        values: such as an indicator's, with at least one after the first that is not NaN.
        seed: of cuts and of other values.
        count: of cuts, at most.
        tolerance: see `TOLERANCE`.
    """
    return find_leaks(
        lambda table: {"": membership.degree(table["value"].to_numpy(dtype=np.float64))},
        pd.DataFrame({"value": values}),
        spread_cuts(int(np.isnan(values).argmin()) + 1, len(values), seed=seed, count=count),
        seed=seed,
        tolerance=tolerance,
    )


def normalization_leaks(
    method: ScalingMethod,
    values: npt.NDArray[np.float32],
    training_rows: int,
    *,
    seed: int = 0,
    count: int = 8,
) -> tuple[Leak, ...]:
    """Return where normalized values depend on rows after them and after the training part.

    Within the training part each depends on all of it, which is what fitting means; so the cuts are after it.

    Args:
        method: of the scaling.
        values: of one feature, finite.
        training_rows: how many of them, from the first, it is fitted on; fewer than there are.
        seed: of cuts and of other values.
        count: of cuts, at most.
    """

    def normalize(table: pd.DataFrame) -> dict[str, FloatArray]:
        column = table["value"].to_numpy(dtype=np.float32, copy=True)
        fit_scaling(method, column[:training_rows]).apply(column)
        return {"": column.astype(np.float64)}

    cuts = spread_cuts(training_rows, len(values), seed=seed, count=count)
    return find_leaks(normalize, pd.DataFrame({"value": values}), cuts, seed=seed, tolerance=0)


def with_another_future(bars: Bars, cut: int, random: np.random.Generator) -> Bars:
    """Return the bars with other ones from ``cut`` on: shuffled, each at another level, with other volume.

    A bar's high stays the highest of its prices and its low the lowest.
    """
    later = len(bars) - cut
    order, level = random.permutation(later), random.uniform(0.5, 2.0, later)
    changed = {}
    for name in bars.columns:
        values = bars[name].to_numpy(dtype=np.float64, copy=True)
        if name == "volume":
            values[cut:] = random.uniform(0, 2 * max(float(values.max()), 1.0), later)
        else:
            values[cut:] = values[cut:][order] * level
        changed[name] = values
    return pd.DataFrame(changed, index=bars.index)


def _first_difference(before: Array, after: Array, tolerance: float) -> int | None:
    """Return the first position at which the two differ; NaN is NaN, and infinity infinity."""
    same = (before == after) | (np.isnan(before) & np.isnan(after))
    finite = np.isfinite(before) & np.isfinite(after)
    if tolerance > 0 and finite.any():
        largest = max(np.abs(before[finite]).max(), np.abs(after[finite]).max())
        same[finite] |= np.abs(before[finite] - after[finite]) <= tolerance * largest
    return None if same.all() else int(same.argmin())
