"""Does anything of a strategy look into the future? Tried on its own bars, part by part and as a whole.

And does each part keep what its base class promises, without which nobody could say?
"""

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
    with_another_future,
)
from ktrdr.features.compute import (
    FeatureMatrix,
    IndicatorValues,
    compute_features,
    compute_indicators,
    output_of,
)
from ktrdr.features.contract import indicator_faults, membership_faults
from ktrdr.features.feature_causality import feature_leaks
from ktrdr.labels.causality import LabelLeak, find_label_leak
from ktrdr.labels.contract import label_faults
from ktrdr.market.bars import Bars
from ktrdr.market.context import ContextTable
from ktrdr.strategy import Strategy

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
    faults: tuple[str, ...] = ()
    """What it does otherwise than its base class says, such as another warm-up than it declares."""


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
        # On made-up bars, as on these a first value may be undefined: relative to zero, for example.
        made_up = with_another_future(table, 0, np.random.default_rng(seed))
        faults = tuple(map(str, indicator_faults(plan.indicators[name], made_up)))
        found = _found(name, indicator_leaks(plan.indicators[name], table, seed=seed), table.index)
        yield LeakCheck("indicator", f"{name} on {place}", found, faults)
    matrix = compute_features(plan, values, bars, check, context)
    complete = np.flatnonzero(~np.isnan(matrix.values).any(axis=1))
    if len(complete) < _FEWEST_ROWS:
        raise DataError(
            f"{len(complete)} bars have every feature, which are too few to try anything on.",
            fix="Use a longer range of dates.",
        )
    yield from _columns(strategy, values, matrix, complete, check, seed, bars, context)
    found = _found("", feature_leaks(plan, bars, context, check, seed=seed), matrix.times)
    yield LeakCheck("alignment", f"all {len(plan.columns)} features together", found)
    base = bars[strategy.base_timeframe]
    faults = label_faults(strategy.label, base, check)
    leak = find_label_leak(strategy.label, base, check, seed=seed)
    found = () if leak is None else (_of_label(strategy, leak),)
    yield LeakCheck("label", strategy.label_source, found, faults)


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
            output = output_of(plan, column)
            source = plan.sources.get(column.indicator_id)
            index = (bars[column.timeframe] if source is None else context[source]).index
            leaks = membership_leaks(column.membership, values[output], seed=seed)
            found = _found(column.feature_id, leaks, index)
            faults = tuple(map(str, membership_faults(column.membership, values[output])))
            yield LeakCheck("membership", column.feature_id, found, faults)
        elif column.normalization != "none":
            leaks = normalization_leaks(
                column.normalization, matrix.values[complete, number], training, seed=seed
            )
            found = _found(column.feature_id, leaks, matrix.times[complete])
            yield LeakCheck("normalization", column.feature_id, found)


def _found(name: str, leaks: tuple[Leak, ...], times: pd.Index) -> tuple[LeakFound, ...]:
    return tuple(
        LeakFound(
            ".".join(part for part in (name, leak.output) if part),
            times[leak.bar].isoformat(),
            f"{leak.before:g}",
            f"{leak.after:g}",
            str(leak),
        )
        for leak in leaks
    )
