"""The model against a baseline on the test part."""

from dataclasses import dataclass
from typing import overload

import numpy as np

from ktrdr.models.metadata import ModelMetadata
from ktrdr.models.report.baselines import class_guess, value_guess
from ktrdr.models.report.bootstrap import BlockBootstrap
from ktrdr.models.report.formatting import measure, points
from ktrdr.models.report.rows import ClassifiedRows, Floats, Integers, RegressedRows, Rows

_SAME_ROWS = 0.01
"""A baseline this close to its recorded score was reproduced: a row before which bars lack may differ."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """The model against one baseline on the test part, by one metric."""

    baseline: str
    metric: str
    model_value: float
    baseline_value: float
    difference: float
    """Positive where the model is better: of shares, or the share by which the error is lower."""
    low: float
    """Of the 95 % interval of the difference."""
    high: float
    paired: bool
    """Whether the baseline was resampled with the model, or its score taken as it is."""

    @property
    def relative(self) -> bool:
        """Whether the difference is relative to the baseline's error."""
        return not measure(self.metric).higher_is_better

    @property
    def difference_text(self) -> str:
        """The difference with its sign and unit."""
        unit = "\u00a0%" if self.relative else " points"
        return f"{points(self.difference)}{unit}"

    @property
    def interval_text(self) -> str:
        """The interval, in the unit of the difference."""
        unit = "\u00a0%" if self.relative else " points"
        return f"{points(self.low)} to {points(self.high)}{unit}"


def compare(
    baseline: str, metric: str, rows: Rows, metadata: ModelMetadata, bootstrap: BlockBootstrap
) -> Comparison | None:
    """Compare by one metric; None if the metadata lacks it."""
    recorded = metadata.baselines[baseline].get(metric)
    own = metadata.test_metrics.get(metric)
    if recorded is None or own is None:
        return None
    if isinstance(rows, ClassifiedRows):
        model = _hits(rows, rows.prediction[rows.test])
        guess = class_guess(baseline, rows, metadata)
        reference = None if guess is None else _hits(rows, guess)
    else:
        model = _value_scores(metric, rows, rows.prediction[rows.test])
        value = value_guess(baseline, rows)
        reference = None if value is None else _value_scores(metric, rows, value)
    if reference is not None and abs(_gain(metric, float(np.mean(reference)), recorded)) > _SAME_ROWS:
        reference = None
    paired = reference is not None
    drawn = bootstrap.means(reference) if reference is not None else np.full(len(bootstrap.starts), recorded)
    low, high = np.quantile(_gain(metric, bootstrap.means(model), drawn), [0.025, 0.975])
    gain = _gain(metric, own, recorded)
    return Comparison(baseline, metric, own, recorded, gain, float(low), float(high), paired)


@overload
def _gain(metric: str, model: float, reference: float) -> float: ...
@overload
def _gain(metric: str, model: Floats, reference: Floats) -> Floats: ...
def _gain(metric: str, model: Floats | float, reference: Floats | float) -> Floats | float:
    if measure(metric).higher_is_better:
        return model - reference
    return 1 - model / np.maximum(reference, np.finfo(np.float64).tiny)


def _hits(rows: ClassifiedRows, guess: Integers) -> Floats:
    return np.asarray(rows.label[rows.test] == guess, dtype=np.float64)


def _value_scores(metric: str, rows: RegressedRows, guess: Floats) -> Floats:
    actual = rows.label[rows.test]
    if metric == "sign_accuracy":
        return np.asarray(np.sign(actual) == np.sign(guess), dtype=np.float64)
    return np.asarray((actual - guess) ** 2)
