"""What a strategy would train, as `ktrdr.language.explanation.explain` says it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pydantic import JsonValue

from ktrdr.errors import Problem


@dataclass(frozen=True, slots=True)
class BarsExplained:
    """Which bars."""

    symbols: Sequence[str]
    timeframes: Sequence[str]
    """All that the features need, that of the rows first."""
    base_timeframe: str
    """Its bars are the rows that are labelled."""
    start: str | None
    """None: the first there is."""
    end: str | None
    at_least: int
    """Bars of the base timeframe, of one symbol, without which training is refused; labels may need more."""


@dataclass(frozen=True, slots=True)
class ContextExplained:
    """A series beside the bars."""

    source_id: str
    definition: str
    """What it is, and since when each of its rows is known."""


@dataclass(frozen=True, slots=True)
class FeatureExplained:
    """One input of the network."""

    feature_id: str
    timeframe: str
    formula: str
    normalization: str
    first_bar: int
    """Bars of the base timeframe before the first that has it, where no bar is missing."""
    context: str | None = None
    """The series of ``context_data`` that it is computed on; None for bars."""
    context_rows: int = 0
    """Rows of that series that must have been known before the first bar."""


@dataclass(frozen=True, slots=True)
class LabelExplained:
    """What is to be learnt."""

    source: str
    parameters: Mapping[str, JsonValue]
    definition: str
    classes: Sequence[str]
    """Empty for a number."""
    horizon_bars: int
    """How far a label looks ahead; 0 where that has no limit."""


@dataclass(frozen=True, slots=True)
class NetworkExplained:
    """What learns it."""

    type: str
    parameters: Mapping[str, JsonValue]
    definition: str
    window: int
    """Consecutive bars that make one input."""
    inputs: int
    """Numbers per bar."""
    outputs: int
    parameter_count: int


@dataclass(frozen=True, slots=True)
class TrainingExplained:
    """How it learns."""

    epochs: int
    batch_size: int
    optimizer: str
    loss: str
    gradient_clip: float | None
    early_stopping: str | None
    lr_scheduler: str | None
    keeps: str
    """By what the best epoch is told, whose weights are the model's."""
    split: Mapping[str, float]
    """Shares in order of time."""


@dataclass(frozen=True, slots=True)
class Explanation:
    """All of it."""

    name: str
    description: str | None
    bars: BarsExplained
    context: Sequence[ContextExplained]
    features: Sequence[FeatureExplained]
    first_bar: int
    """Bars of the base timeframe before the first that has every feature, where no bar is missing."""
    label: LabelExplained
    output_format: str
    network: NetworkExplained
    training: TrainingExplained
    warnings: Sequence[Problem]
