"""Features and labels of every symbol, each by itself, and the rows that they make together."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import pandas as pd

from ktrdr.errors import DataError
from ktrdr.features.compute import (
    FeatureMatrix,
    IndicatorValues,
    compute_features,
    compute_indicators,
    drop_warmup,
)
from ktrdr.features.indicator_cache import IndicatorCache
from ktrdr.features.windows import complete_windows
from ktrdr.labels import Labels
from ktrdr.labels.contract import sound_labels
from ktrdr.market.timeframe import Timeframe
from ktrdr.strategy.strategy import Strategy
from ktrdr.training.labelled_rows import LabelledRows, match, together
from ktrdr.training.tables import Tables

Check = Callable[[], None]
"""Called now and then; raises if the training is cancelled."""


def indicators_of(
    strategy: Strategy, tables: Tables, cache: IndicatorCache, check: Check
) -> dict[str, IndicatorValues]:
    """Return the outputs of the strategy's indicators, by symbol.

    Raises:
        DataError: the bars of a symbol are too few; names it where there are several.
    """
    found = {}
    for symbol in strategy.symbols:
        with _naming(symbol, strategy):
            found[symbol] = compute_indicators(
                strategy.feature_plan,
                tables.bars[symbol],
                check,
                tables.context,
                cache.on(tables.hashes[symbol]),
            )
    return found


def features_of(
    strategy: Strategy, tables: Tables, values: Mapping[str, IndicatorValues], check: Check
) -> tuple[dict[str, FeatureMatrix], int]:
    """Return the features of the bars that have all of them, by symbol, and how many bars have not.

    Raises:
        DataError: a symbol has no such bar, or too many gaps.
    """
    found, incomplete = {}, 0
    for symbol in strategy.symbols:
        with _naming(symbol, strategy):
            matrix = compute_features(
                strategy.feature_plan, values[symbol], tables.bars[symbol], check, tables.context
            )
            found[symbol], dropped = drop_warmup(matrix)
        incomplete += dropped
    return found, incomplete


def labels_of(strategy: Strategy, tables: Tables, check: Check) -> dict[str, Labels]:
    """Return the labels by symbol.

    Raises:
        DataError: the bars of a symbol cannot be labelled.
    """
    found = {}
    for symbol in strategy.symbols:
        with _naming(symbol, strategy):
            found[symbol] = sound_labels(strategy.label, tables.base(symbol), check)
    return found


def rows_of(
    strategy: Strategy, tables: Tables, matrices: Mapping[str, FeatureMatrix], labels: Mapping[str, Labels]
) -> tuple[LabelledRows, int]:
    """Return the rows to learn from, and how many bars were left out for want of a whole window.

    Raises:
        DataError: no bar of a symbol has both features and a label.
    """
    timeframe, window = Timeframe.parse(strategy.base_timeframe), strategy.network.window
    parts, left_out = [], 0
    for symbol, matrix in matrices.items():
        base = tables.base(symbol)
        ends = complete_windows(matrix, pd.DatetimeIndex(base.index), timeframe, window)
        left_out += len(matrix.times) - len(ends)
        parts.append(match(symbol, matrix, ends, window, labels[symbol], base))
    return together(parts), left_out


@contextmanager
def _naming(symbol: str, strategy: Strategy) -> Iterator[None]:
    """Say of an error whose bars it is about, where that is a question."""
    try:
        yield
    except DataError as error:
        if len(strategy.symbols) == 1:
            raise
        raise DataError(f"{symbol}: {error.message}", fix=error.fix) from error
