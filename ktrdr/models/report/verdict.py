"""Whether the model beats the baselines on the test part, and how sure that is."""

from dataclasses import dataclass
from enum import Enum

from ktrdr.models.metadata import ModelMetadata
from ktrdr.models.report.baselines import baseline_names, baseline_title
from ktrdr.models.report.bootstrap import BlockBootstrap, block_rows
from ktrdr.models.report.comparison import Comparison, compare
from ktrdr.models.report.formatting import count, counted, english_list, percent
from ktrdr.models.report.rows import ClassifiedRows, Rows


class Outcome(Enum):
    """What the test says."""

    BEATS = "beats"
    """Better than every baseline, and no interval reaches zero."""
    UNCLEAR = "unclear"
    """Better than every baseline, but by no more than chance allows."""
    BEHIND = "behind"
    """Not better than one of them."""


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
        if (comparison := compare(baseline, metric, rows, metadata, bootstrap)) is not None
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
        "A zigzag label says in which swing a bar lies. Much of the swing is over by then, so that part of "
        "the answer is in the past: being right here is not yet foresight."
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
    if not comparison.difference:
        return f"exactly as often as the {baseline_title(comparison.baseline)}"
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
        f"{counted(bootstrap.block_rows, 'consecutive row')} ({count(blocks)} blocks), because labels that "
        "look ahead over the same bars are not independent."
    )
    if blocks < _FEW_BLOCKS:
        text += " So few blocks make the intervals themselves rough."
    fixed = dict.fromkeys(comparison.baseline for comparison in comparisons if not comparison.paired)
    if fixed:
        names = english_list([f"the {baseline_title(name)}" for name in fixed])
        text += f" The score of {names} is taken as exact, as the answer to each row is not known."
    return text
