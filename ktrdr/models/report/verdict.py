"""Whether the model beats the baselines on the test part, and how sure that is."""

from dataclasses import dataclass
from enum import Enum
from typing import overload

import numpy as np

from ktrdr.models.metadata import ModelMetadata
from ktrdr.models.report.baselines import baseline_names, baseline_title, class_guess, value_guess
from ktrdr.models.report.bootstrap import BlockBootstrap, block_rows
from ktrdr.models.report.formatting import count, english_list, measure, percent, points
from ktrdr.models.report.rows import ClassifiedRows, Floats, Integers, RegressedRows, Rows

_SAME_ROWS = 0.01
"""A baseline this close to its recorded score was reproduced: a row before which bars lack may differ."""


class Outcome(Enum):
    """What the test says."""

    BEATS = "beats"
    """Better than every baseline, and no interval reaches zero."""
    UNCLEAR = "unclear"
    """Better than every baseline, but by no more than chance allows."""
    BEHIND = "behind"
    """Not better than one of them."""


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


@dataclass(frozen=True, slots=True)
class Verdict:
    """One sentence, and what it rests on."""

    outcome: Outcome
    headline: str
    sentence: str
    comparisons: tuple[Comparison, ...]
    method: str
    """How the intervals were found."""
    caveat: str
    """What the figures do not mean; empty for most labels."""


def judge(rows: Rows, metadata: ModelMetadata) -> Verdict:
    """Compare the model with each of its baselines on the test rows."""
    length = block_rows(rows, metadata)
    bootstrap = BlockBootstrap.draw(rows.tested, length, metadata.seed)
    comparisons = tuple(
        comparison
        for metric in (("accuracy",) if isinstance(rows, ClassifiedRows) else ("mse", "sign_accuracy"))
        for baseline in baseline_names(metadata)
        if (comparison := _compare(baseline, metric, rows, metadata, bootstrap)) is not None
    )
    outcome = _outcome(comparisons)
    return Verdict(
        outcome=outcome,
        headline=_headline(comparisons, outcome),
        sentence=_sentence(comparisons, rows),
        comparisons=comparisons,
        method=_method(comparisons, bootstrap),
        caveat=_CAVEATS.get(metadata.label_source, ""),
    )


_CAVEATS = {
    "zigzag": (
        "A zigzag label says in which swing a bar lies. Much of the swing is over by then, so that part of the "
        "answer is in the past: being right here is not yet foresight."
    ),
}
_FEW_BLOCKS = 20


def _headline(comparisons: tuple[Comparison, ...], outcome: Outcome) -> str:
    if not comparisons:
        return "There is nothing to compare it with"
    if outcome is Outcome.BEATS:
        return "Beats the baselines"
    if outcome is Outcome.UNCLEAR:
        return "Ahead of the baselines, but within the noise"
    ahead_of_one = any(comparison.difference > 0 for comparison in comparisons)
    return "Does not beat every baseline" if ahead_of_one else "Does not beat the baselines"


def _outcome(comparisons: tuple[Comparison, ...]) -> Outcome:
    if not comparisons or any(comparison.difference <= 0 for comparison in comparisons):
        return Outcome.BEHIND
    return Outcome.BEATS if all(comparison.low > 0 for comparison in comparisons) else Outcome.UNCLEAR


def _compare(
    baseline: str, metric: str, rows: Rows, metadata: ModelMetadata, bootstrap: BlockBootstrap
) -> Comparison | None:
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


def _sentence(comparisons: tuple[Comparison, ...], rows: Rows) -> str:
    tested = count(rows.tested)
    if not comparisons:
        return f"The metadata names no baseline for the {tested} test rows."
    hardest = [
        min((c for c in comparisons if c.metric == metric), key=lambda comparison: comparison.difference)
        for metric in dict.fromkeys(comparison.metric for comparison in comparisons)
    ]
    if isinstance(rows, ClassifiedRows):
        (accuracy,) = hardest
        return (
            f"The model is right in {percent(accuracy.model_value)} of the {tested} test rows, "
            f"{_frequency(accuracy)}, its strongest baseline {_interval(accuracy)}."
        )
    clauses = [
        f"the squared error is {_unsigned(comparison)} {_lower_or_higher(comparison)} {_interval(comparison)}"
        if comparison.relative
        else f"the sign is right in {percent(comparison.model_value)}, {_frequency(comparison)} "
        f"{_interval(comparison)}"
        for comparison in hardest
    ]
    return f"Against the strongest baselines on the {tested} test rows: {'; '.join(clauses)}."


def _frequency(comparison: Comparison) -> str:
    how = "more" if comparison.difference > 0 else "less"
    return f"{_unsigned(comparison)} {how} often than the {baseline_title(comparison.baseline)}"


def _lower_or_higher(comparison: Comparison) -> str:
    how = "lower" if comparison.difference > 0 else "higher"
    return f"{how} than that of the {baseline_title(comparison.baseline)}"


def _interval(comparison: Comparison) -> str:
    return f"(95\u00a0% interval {comparison.interval_text})"


def _unsigned(comparison: Comparison) -> str:
    return comparison.difference_text.lstrip("+−")


def _method(comparisons: tuple[Comparison, ...], bootstrap: BlockBootstrap) -> str:
    resamples, blocks = bootstrap.starts.shape
    text = (
        f"The intervals come from {count(resamples)} resamples of the test rows in blocks of "
        f"{count(bootstrap.block_rows)} consecutive rows ({count(blocks)} blocks), because labels that look "
        "ahead over the same bars are not independent."
    )
    if blocks < _FEW_BLOCKS:
        text += " So few blocks make the intervals themselves rough."
    fixed = [baseline_title(comparison.baseline) for comparison in comparisons if not comparison.paired]
    if fixed:
        names = english_list([f"the {name}" for name in fixed])
        text += f" The score of {names} is taken as exact, as the answer to each row is not known."
    return text
