"""A strategy as the rest of the program sees it: checked and resolved."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from pydantic import JsonValue

from ktrdr.errors import Problem
from ktrdr.features.plan import FeaturePlan
from ktrdr.labels import LabelSource
from ktrdr.losses import Loss, OutputFormat
from ktrdr.market.context import ContextEntry
from ktrdr.networks import Network

_LONGEST_NAME = 48
"""Of several symbols; a directory's name has to fit more than that."""

Optimizer = Literal["adam", "adamw", "sgd", "rmsprop"]


@dataclass(frozen=True, slots=True)
class DataSplit:
    """Shares of the chronological split; they add up to 1."""

    train: float = 0.7
    validation: float = 0.15
    test: float = 0.15


@dataclass(frozen=True, slots=True)
class EarlyStopping:
    """When to stop before the last epoch."""

    patience: int
    """Epochs without an improvement."""
    min_delta: float
    """What counts as one."""
    monitor: Literal["val_loss", "val_accuracy"]


@dataclass(frozen=True, slots=True)
class LrScheduler:
    """How the learning rate falls; each type reads its own fields."""

    type: Literal["step", "exponential", "reduce_on_plateau"]
    step_size: int
    """step: epochs between two falls."""
    gamma: float
    """step, exponential: factor of each fall."""
    factor: float
    """reduce_on_plateau: likewise."""
    patience: int
    """reduce_on_plateau: epochs without a lower validation loss before a fall."""


@dataclass(frozen=True, slots=True)
class TrainingOptions:
    """How the network is trained."""

    epochs: int
    learning_rate: float
    batch_size: int
    loss: Loss
    optimizer: Optimizer
    weight_decay: float
    momentum: float
    """Of sgd and rmsprop."""
    gradient_clip: float | None
    """Largest norm of the gradient of all parameters; None for no limit."""
    early_stopping: EarlyStopping | None
    lr_scheduler: LrScheduler | None
    data_split: DataSplit


@dataclass(frozen=True, slots=True)
class CostModel:
    """What a trade must earn."""

    round_trip_cost: float
    min_edge_multiplier: float


@dataclass(frozen=True, slots=True)
class Decisions:
    """How outputs become trades; kept with the model, not used by its training but for the output format."""

    output_format: OutputFormat
    confidence_threshold: float
    cost_model: CostModel | None
    position_awareness: bool
    allow_short_from_flat: bool
    min_signal_separation_hours: float


@dataclass(frozen=True, slots=True)
class Strategy:
    """What is to be trained on what, and how."""

    name: str
    description: str | None
    version: str
    symbols: tuple[str, ...]
    """Whose bars it is trained on: one network for all of them."""
    timeframes: tuple[str, ...]
    """All that the features need, the base timeframe first."""
    base_timeframe: str
    """Its bars are the rows that are labelled."""
    start: str | None
    """First day or time (ISO 8601, UTC) to train on; None for all there is."""
    end: str | None
    """Last day, which is included, or time."""
    context: Mapping[str, ContextEntry]
    """Source id → what gives it; the series that the features need."""
    feature_plan: FeaturePlan
    label_source: str
    label: LabelSource
    model_type: str
    network: Network
    training: TrainingOptions
    decisions: Decisions

    @property
    def symbol(self) -> str:
        """The symbol, or what several are called together: in names of models, in lists and events."""
        joined = "+".join(self.symbols)
        return joined if len(joined) <= _LONGEST_NAME else f"{self.symbols[0]}+{len(self.symbols) - 1}"


@dataclass(frozen=True, slots=True)
class ParsedStrategy:
    """A strategy and what was read to get it."""

    strategy: Strategy
    warnings: tuple[Problem, ...]
    """Keys without effect, and outdated names."""
    sha256: str
    """Of the UTF-8 text."""
    effective: Mapping[str, JsonValue]
    """The parsed YAML with the overrides applied."""

    @property
    def name(self) -> str:
        """The strategy's name."""
        return self.strategy.name
