"""The feature stage: bars → indicators → one matrix of the network's inputs."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
import pandas as pd

from ktrdr.errors import DataError
from ktrdr.features.contract import require_sound
from ktrdr.features.indicators.base import FloatArray, Indicator
from ktrdr.features.plan import FeatureColumn, FeaturePlan
from ktrdr.market.alignment import closed_bar_positions
from ktrdr.market.bars import Bars
from ktrdr.market.context import ContextTable, known_rows
from ktrdr.market.timeframe import Timeframe
from ktrdr.market.times import Int64Array, to_microseconds

# Rows at a time, so that what is computed for one column is still in the cache when the next one interleaves
# with it: 1 M rows × 20 columns take 60 % of the time that whole columns take, and no temporary columns.
_BLOCK_ROWS = 8192

_LARGEST = float(np.finfo(np.float32).max)

_NO_CONTEXT: Mapping[str, ContextTable] = MappingProxyType({})


class Output(NamedTuple):
    """One output of one indicator on one timeframe, or on a context series."""

    timeframe: str
    """The empty string for an indicator of a context series, which has rows of its own."""
    indicator_id: str
    name: str
    """The empty string for an indicator with one output."""


IndicatorValues: TypeAlias = Mapping[Output, FloatArray]
"""One value per bar of the output's own timeframe, or per row of its context series.

NaN in the warm-up and where it is not defined.
"""


Table: TypeAlias = Bars | ContextTable
Compute: TypeAlias = Callable[[Indicator, Table, str], Mapping[str, FloatArray]]
"""Returns an indicator's outputs on a table, which is of this timeframe, or `of_context` a source."""


def of_context(source: str) -> str:
    """Return what the table of a context source is called, so that no timeframe is called so."""
    return f"context {source}"


def compute_anew(indicator: Indicator, table: Table, of: str) -> Mapping[str, FloatArray]:
    """Return an indicator's outputs on a table.

    Raises:
        PluginError: it breaks its contract.
    """
    outputs = indicator.compute(table)
    require_sound(outputs, indicator, len(table))
    return outputs


@dataclass(frozen=True, slots=True)
class FeatureMatrix:
    """The network's inputs, one row per bar of the base timeframe."""

    times: pd.DatetimeIndex
    """Open times of the rows' bars; a row is known at its bar's close."""
    values: npt.NDArray[np.float32]
    """(row, feature); NaN where a feature has no value."""
    feature_ids: tuple[str, ...]


def compute_indicators(
    plan: FeaturePlan,
    bars: Mapping[str, Bars],
    check: Callable[[], None],
    context: Mapping[str, ContextTable] = _NO_CONTEXT,
    compute: Compute = compute_anew,
) -> IndicatorValues:
    """Compute each output that a feature needs, once, on its own timeframe's bars or context series' rows.

    Args:
        plan: the features.
        bars: timeframe → bars; others than the plan's are left alone.
        check: called between indicators; raises if the training is cancelled.
        context: source id → rows; likewise.
        compute: computes one indicator, or has it already.

    Raises:
        DataError: bars of a timeframe are missing, too few, or not all finite numbers; or an indicator makes
            more of them than a feature can be.
        PluginError: an indicator breaks its contract.
    """
    needed: dict[tuple[str, str], list[str]] = {}
    for column in plan.columns:
        output = output_of(plan, column)
        names = needed.setdefault((output.timeframe, output.indicator_id), [])
        if output.name not in names:
            names.append(output.name)

    for timeframe in plan.timeframes:
        if timeframe not in bars:
            raise DataError(f"There are no {timeframe} bars, which the strategy's features need.")
        _require_finite(f"{timeframe} bar", bars[timeframe])
    for source in plan.context_sources:
        if source not in context:
            raise DataError(f"There is no context '{source}', which the strategy's features need.")
        _require_finite(f"row of {source}", context[source])

    values: dict[Output, FloatArray] = {}
    for (timeframe, indicator_id), names in needed.items():
        check()
        indicator = plan.indicators[indicator_id]
        on = plan.sources.get(indicator_id)
        table = bars[timeframe] if on is None else context[on]
        if len(table) <= indicator.warmup_bars:
            raise DataError(
                f"Indicator '{indicator_id}' needs at least {indicator.warmup_bars + 1} "
                f"{f'bars of {timeframe}' if on is None else f'rows of {on}'}, but there are {len(table)}.",
                fix="Use a longer range of dates, or a shorter period.",
            )
        outputs = compute(indicator, table, timeframe if on is None else of_context(on))
        for name in names:
            _require_representable(indicator_id, name, outputs[name], table.index)
            values[Output(timeframe, indicator_id, name)] = outputs[name]
    check()
    return values


def compute_features(
    plan: FeaturePlan,
    values: IndicatorValues,
    bars: Mapping[str, Bars],
    check: Callable[[], None],
    context: Mapping[str, ContextTable] = _NO_CONTEXT,
) -> FeatureMatrix:
    """Compute the features of every bar of the base timeframe, in the order of the plan.

    A feature of a coarser timeframe is that of its newest bar that has closed when the row's bar closes, and
    one of a context series that of the newest row that was known when the feature's bar closed.
    Raw features are not normalized yet: that is fitted on the training part (`ktrdr.features.normalization`).

    Args:
        plan: the features.
        values: from `compute_indicators`.
        bars: timeframe → bars, the same.
        check: called at least every few milliseconds; raises if the training is cancelled.
        context: source id → rows, the same as for the values.
    """
    opens = {timeframe: pd.DatetimeIndex(bars[timeframe].index) for timeframe in plan.timeframes}
    base = opens[plan.base_timeframe]
    places = [(column.timeframe, plan.sources.get(column.indicator_id)) for column in plan.columns]
    positions = {
        place: _positions(plan.base_timeframe, *place, opens, context)
        for place in dict.fromkeys(places)
        if place != (plan.base_timeframe, None)
    }
    # Degrees of other rows than the base bars once for each; the NaN at the end is what position -1 takes.
    coarse = {
        index: np.append(_degrees(column, values[output_of(plan, column)]), np.nan)
        for index, column in enumerate(plan.columns)
        if places[index] in positions
    }
    matrix = np.empty((len(base), len(plan.columns)), dtype=np.float32)
    for start in range(0, len(base), _BLOCK_ROWS):
        check()
        block = slice(start, start + _BLOCK_ROWS)
        for index, column in enumerate(plan.columns):
            if index in coarse:
                matrix[block, index] = coarse[index][positions[places[index]][block]]
            else:
                matrix[block, index] = _degrees(column, values[output_of(plan, column)][block])
    return FeatureMatrix(base, matrix, plan.feature_ids)


def drop_warmup(matrix: FeatureMatrix, *, max_gaps: float = 0.05) -> tuple[FeatureMatrix, int]:
    """Leave out the rows in which a feature has no value, and say how many they were.

    Most are the warm-up at the start. Later ones are where an indicator is not defined (a change relative to
    zero) or a coarser timeframe has no bars.

    Args:
        matrix: may share its memory with the result.
        max_gaps: share of the rows after the warm-up that may be left out.

    Raises:
        DataError: no row is left, or more are left out after the warm-up than ``max_gaps`` allows.
    """
    missing = np.isnan(matrix.values)
    complete: npt.NDArray[np.bool_] = np.logical_not(np.any(missing, axis=1))
    rows = len(complete)
    if not complete.any():
        scarcest = int(missing.sum(axis=0).argmax()) if rows else 0
        present = rows - int(missing[:, scarcest].sum())
        raise DataError(
            f"No bar has a value for every feature; '{matrix.feature_ids[scarcest]}' has one at {present} "
            f"of {rows} bars.",
            fix="Use a longer range of dates, or shorter periods.",
        )
    first = int(complete.argmax())
    dropped = rows - int(complete.sum())
    if dropped == first:  # nothing but the warm-up: a view will do
        return FeatureMatrix(matrix.times[first:], matrix.values[first:], matrix.feature_ids), dropped
    gaps = dropped - first
    if gaps > max_gaps * (rows - first):
        scarcest = int(missing[first:].sum(axis=0).argmax())
        since = matrix.times[first + int(missing[first:, scarcest].argmax())]
        raise DataError(
            f"Features have no value at {gaps} of the {rows - first} bars after the warm-up; "
            f"'{matrix.feature_ids[scarcest]}' lacks most, the first at {since.isoformat()}.",
            fix="Check the data of its timeframe there, or leave the feature out.",
        )
    return FeatureMatrix(matrix.times[complete], matrix.values[complete], matrix.feature_ids), dropped


def output_of(plan: FeaturePlan, column: FeatureColumn) -> Output:
    """Return what a feature is made of."""
    timeframe = "" if column.indicator_id in plan.sources else column.timeframe
    return Output(timeframe, column.indicator_id, column.output)


def _positions(
    base: str,
    timeframe: str,
    source: str | None,
    opens: Mapping[str, pd.DatetimeIndex],
    context: Mapping[str, ContextTable],
) -> Int64Array:
    """Return, for each base bar, the row whose value it has: of a coarser timeframe, or of a context series.

    -1 where there is none yet.
    """
    own = Timeframe.parse(timeframe)
    closed = closed_bar_positions(opens[base], Timeframe.parse(base), opens[timeframe], own)
    if source is None:
        return closed
    closes = own.close_microseconds(to_microseconds(opens[timeframe]))
    known = known_rows(to_microseconds(context[source].index), closes)
    return np.append(known, -1)[closed]


def _degrees(column: FeatureColumn, values: FloatArray) -> FloatArray:
    return values if column.membership is None else column.membership.degree(values)


def _require_representable(indicator_id: str, output: str, values: FloatArray, times: pd.Index) -> None:
    beyond = np.abs(values) > _LARGEST
    if beyond.any():
        first = int(beyond.argmax())
        reference = f"{indicator_id}.{output}" if output else indicator_id
        raise DataError(
            f"The indicator '{reference}' is {values[first]:g} at {times[first].isoformat()}: "
            "a feature cannot be that large.",
            fix="Correct the data file, or what computes the indicator.",
        )


def _require_finite(what: str, frame: pd.DataFrame) -> None:
    for name in frame.columns:
        finite = np.isfinite(frame[name].to_numpy())
        if not finite.all():
            time = frame.index[int(finite.argmin())]
            raise DataError(
                f"The {what} of {time.isoformat()} has a {name} that is not a number.",
                fix="Correct the data file.",
            )
