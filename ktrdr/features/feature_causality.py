"""Does a feature of a strategy look into the future? The whole stage, with its timeframes and series."""

from collections.abc import Callable, Iterator, Mapping

import numpy as np
import pandas as pd

from ktrdr.errors import DataError
from ktrdr.features.causality import Array, Leak, Trial, earliest_leaks, spread_cuts, with_another_future
from ktrdr.features.compute import FeatureMatrix, compute_features, compute_indicators
from ktrdr.features.plan import FeaturePlan
from ktrdr.market.bars import Bars
from ktrdr.market.context import ContextTable
from ktrdr.market.timeframe import Timeframe
from ktrdr.market.times import Int64Array, to_microseconds

FEATURE_TOLERANCE = 1e-6
"""Relative to the largest value of a feature: some steps of a float32, in which features are."""


def feature_leaks(
    plan: FeaturePlan,
    bars: Mapping[str, Bars],
    context: Mapping[str, ContextTable],
    check: Callable[[], None],
    *,
    seed: int = 0,
    count: int = 8,
    tolerance: float = FEATURE_TOLERANCE,
) -> tuple[Leak, ...]:
    """Return, for each feature that looks ahead, the earliest base bar at which it was caught.

    In the future of a base bar is every bar, of any timeframe, that has not closed when it closes, and every
    row of a context series that is not known by then: those are removed, and replaced.

    Args:
        plan: the features.
        bars: timeframe → bars.
        context: source id → rows.
        check: called as by `compute_features`; raises if nobody wants to know any more.
        seed: of cuts and of other bars.
        count: of cuts, at most.
        tolerance: see `FEATURE_TOLERANCE`; 0 asks for the same to the last bit.

    Raises:
        DataError: as `compute_indicators`; or there are too few bars to leave some out.
        PluginError: an indicator breaks its contract.
    """
    known = {name: _closes(bars[name], name) for name in plan.timeframes if name in bars}
    series = {name: to_microseconds(context[name].index) for name in plan.context_sources if name in context}
    whole = _compute(plan, bars, context, check)
    closes = known[plan.base_timeframe]
    first = _first_complete(plan, known, series)
    if first >= len(closes):
        raise DataError(
            f"{len(closes)} bars of {plan.base_timeframe} are too few to leave some out: "
            f"the features need {first} for their first values.",
            fix="Use a longer range of dates, or shorter periods.",
        )
    random = np.random.default_rng(seed)

    def trials() -> Iterator[Trial]:
        for cut in spread_cuts(first, len(closes), seed=seed, count=count):
            moment = int(closes[cut - 1])
            kept = {name: _known_by(moment, times) for name, times in known.items()}
            kept_rows = {name: _known_by(moment, times) for name, times in series.items()}
            removed = _compute(plan, _cut(bars, kept), _cut(context, kept_rows), check)
            yield Trial(cut, "removed", _columns(removed))
            replaced = _compute(
                plan, _replaced(bars, kept, random), _replaced(context, kept_rows, random), check
            )
            yield Trial(cut, "replaced", _columns(replaced))

    return earliest_leaks(_columns(whole), trials(), tolerance)


def _compute(
    plan: FeaturePlan,
    bars: Mapping[str, Bars],
    context: Mapping[str, ContextTable],
    check: Callable[[], None],
) -> FeatureMatrix:
    values = compute_indicators(plan, bars, check, context)
    return compute_features(plan, values, bars, check, context)


def _columns(matrix: FeatureMatrix) -> dict[str, Array]:
    return dict(zip(matrix.feature_ids, matrix.values.T, strict=True))


def _closes(table: Bars, timeframe: str) -> Int64Array:
    return Timeframe.parse(timeframe).close_microseconds(to_microseconds(pd.DatetimeIndex(table.index)))


def _known_by(moment: int, times: Int64Array) -> int:
    return int(np.searchsorted(times, moment, side="right"))


def _first_complete(
    plan: FeaturePlan, known: Mapping[str, Int64Array], series: Mapping[str, Int64Array]
) -> int:
    """Return how many base bars there are when every indicator has a value."""
    closes = known[plan.base_timeframe]
    moments = [int(closes[0])]
    for column in plan.columns:
        source = plan.sources.get(column.indicator_id)
        times = known[column.timeframe] if source is None else series[source]
        moments.append(int(times[plan.indicators[column.indicator_id].warmup_bars]))
    return int(np.searchsorted(closes, max(moments), side="left")) + 1


def _cut(tables: Mapping[str, pd.DataFrame], kept: Mapping[str, int]) -> dict[str, pd.DataFrame]:
    return {name: tables[name].iloc[:rows] for name, rows in kept.items()}


def _replaced(
    tables: Mapping[str, pd.DataFrame], kept: Mapping[str, int], random: np.random.Generator
) -> dict[str, pd.DataFrame]:
    return {name: with_another_future(tables[name], rows, random) for name, rows in kept.items()}
