"""Does anything of a strategy look into the future? Tried on its own bars, part by part and as a whole."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from ktrdr.errors import DataError
from ktrdr.features.causality import (
    Leak,
    indicator_leaks,
    membership_leaks,
    normalization_leaks,
    spread_cuts,
    with_another_future,
)
from ktrdr.features.compute import (
    FeatureMatrix,
    IndicatorValues,
    Output,
    compute_features,
    compute_indicators,
)
from ktrdr.features.plan import FeatureColumn
from ktrdr.labels.causality import LabelLeak, find_label_leak
from ktrdr.market.bars import Bars
from ktrdr.market.context import ContextTable
from ktrdr.market.timeframe import Timeframe
from ktrdr.strategy import Strategy

_TOLERANCE = 1e-6
"""Relative to the largest value of a feature: some steps of a float32, in which features are."""
_FEWEST_ROWS = 50


@dataclass(frozen=True, slots=True)
class LeakFound:
    """One value that later bars decide."""

    feature: str
    """Or the indicator's output, the membership or the label."""
    time: str
    """Of its bar (ISO 8601, UTC)."""
    before: str
    """What it is."""
    after: str
    """What it is with other bars after those that it may depend on, or without them."""
    message: str


@dataclass(frozen=True, slots=True)
class LeakCheck:
    """One part of the strategy that was tried."""

    kind: str
    """``indicator``, ``membership``, ``normalization``, ``alignment`` or ``label``."""
    subject: str
    leaks: tuple[LeakFound, ...]


def check_leakage(
    strategy: Strategy,
    bars: Mapping[str, Bars],
    context: Mapping[str, ContextTable],
    check: Callable[[], None],
    *,
    seed: int = 0,
) -> Iterator[LeakCheck]:
    """Try each part of a strategy, then all of its features together, then its label; yield each when done.

    Each is computed again without later bars, and with made-up ones instead; see `ktrdr.features.causality`.

    Args:
        strategy: which.
        bars: of one symbol, by timeframe; some thousands of the base timeframe.
        context: source id → rows.
        check: called now and then; raises if nobody wants to know any more.
        seed: of where the bars are cut, and of the others.

    Raises:
        DataError: the bars are too few.
    """
    plan = strategy.feature_plan
    values = compute_indicators(plan, bars, check, context)
    for timeframe, name in dict.fromkeys((output.timeframe, output.indicator_id) for output in values):
        check()
        table = context[plan.sources[name]] if name in plan.sources else bars[timeframe]
        place = plan.sources.get(name, timeframe)
        if len(table) < plan.indicators[name].warmup_bars + 3:
            raise DataError(
                f"{len(table)} rows of {place} are too few to try '{name}' on.",
                fix="Use a longer range of dates.",
            )
        leaks = indicator_leaks(plan.indicators[name], table, seed=seed)
        yield LeakCheck("indicator", f"{name} on {place}", _found(name, leaks, table.index))
    matrix = compute_features(plan, values, bars, check, context)
    complete = np.flatnonzero(~np.isnan(matrix.values).any(axis=1))
    if len(complete) < _FEWEST_ROWS:
        raise DataError(
            f"{len(complete)} bars have every feature, which are too few to try anything on.",
            fix="Use a longer range of dates.",
        )
    yield from _columns(strategy, values, matrix, complete, check, seed, bars, context)
    yield _whole(strategy, bars, context, matrix, int(complete[0]), check, seed)
    check()
    base = bars[strategy.base_timeframe]
    leak = find_label_leak(strategy.label, base, check, seed=seed)
    yield LeakCheck("label", strategy.label_source, () if leak is None else (_of_label(strategy, leak),))


def _of_label(strategy: Strategy, leak: LabelLeak) -> LeakFound:
    time = leak.time.isoformat()
    return LeakFound(strategy.label_source, time, "the label as it is", leak.change, str(leak))


def _columns(
    strategy: Strategy,
    values: IndicatorValues,
    matrix: FeatureMatrix,
    complete: npt.NDArray[np.intp],
    check: Callable[[], None],
    seed: int,
    bars: Mapping[str, Bars],
    context: Mapping[str, ContextTable],
) -> Iterator[LeakCheck]:
    """Try memberships on their indicator's values, and normalizations on what they are fitted on."""
    plan = strategy.feature_plan
    training = int(len(complete) * strategy.training.data_split.train)
    for number, column in enumerate(plan.columns):
        check()
        if column.membership is not None:
            output = _output_of(column, plan.sources)
            source = plan.sources.get(column.indicator_id)
            index = (bars[column.timeframe] if source is None else context[source]).index
            leaks = membership_leaks(column.membership, values[output], seed=seed)
            yield LeakCheck("membership", column.feature_id, _found(column.feature_id, leaks, index))
        elif column.normalization != "none":
            leaks = normalization_leaks(
                column.normalization, matrix.values[complete, number], training, seed=seed
            )
            found = _found(column.feature_id, leaks, matrix.times[complete])
            yield LeakCheck("normalization", column.feature_id, found)


def _whole(
    strategy: Strategy,
    bars: Mapping[str, Bars],
    context: Mapping[str, ContextTable],
    matrix: FeatureMatrix,
    first: int,
    check: Callable[[], None],
    seed: int,
) -> LeakCheck:
    """Try the matrix as training sees it: a row depends on what has closed, and was known, by its close."""
    plan = strategy.feature_plan
    random = np.random.default_rng(seed)
    closes = {name: Timeframe.parse(name).close_times(pd.DatetimeIndex(bars[name].index)) for name in bars}
    earliest: dict[str, LeakFound] = {}
    rows: dict[str, int] = {}
    for cut in spread_cuts(first + 1, len(matrix.times), seed=seed):
        now = closes[plan.base_timeframe][cut - 1]
        kept = {name: int(closes[name].searchsorted(now, side="right")) for name in bars}
        known = {name: int(context[name].index.searchsorted(now, side="right")) for name in context}
        for future in ("removed", "replaced"):
            check()
            others = {name: _with_future(bars[name], kept[name], future, random) for name in bars}
            beside = {name: _with_future(context[name], known[name], future, random) for name in context}
            values = compute_indicators(plan, others, check, beside)
            again = compute_features(plan, values, others, check, beside).values[:cut]
            for number, feature in enumerate(matrix.feature_ids):
                row = _first_difference(matrix.values[:cut, number], again[:, number])
                if row is not None and row < rows.get(feature, cut):
                    rows[feature] = row
                    before, after = matrix.values[row, number], again[row, number]
                    time = matrix.times[row].isoformat()
                    said = f"{feature} of the bar of {time} is {before:g}, and {after:g} with what is known "
                    said += f"after {now.isoformat()} {future}."
                    earliest[feature] = LeakFound(feature, time, f"{before:g}", f"{after:g}", said)
    return LeakCheck("alignment", f"all {len(plan.columns)} features together", tuple(earliest.values()))


def _with_future(table: pd.DataFrame, kept: int, future: str, random: np.random.Generator) -> pd.DataFrame:
    if kept == len(table):
        return table
    return table.iloc[:kept] if future == "removed" else with_another_future(table, kept, random)


def _first_difference(before: npt.NDArray[np.float32], after: npt.NDArray[np.float32]) -> int | None:
    finite = np.abs(before[np.isfinite(before)])
    largest = float(finite.max()) if len(finite) else 0.0
    same = np.isclose(before, after, rtol=0, atol=_TOLERANCE * largest, equal_nan=True)
    return None if same.all() else int(same.argmin())


def _output_of(column: FeatureColumn, sources: Mapping[str, str]) -> Output:
    timeframe = "" if column.indicator_id in sources else column.timeframe
    return Output(timeframe, column.indicator_id, column.output)


def _found(name: str, leaks: tuple[Leak, ...], times: pd.Index) -> tuple[LeakFound, ...]:
    return tuple(
        LeakFound(
            f"{name}.{leak.output}" if leak.output else name,
            times[leak.bar].isoformat(),
            f"{leak.before:g}",
            f"{leak.after:g}",
            str(leak),
        )
        for leak in leaks
    )
