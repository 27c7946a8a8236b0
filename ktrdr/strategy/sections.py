"""The sections of a strategy file, key by key: flat, strict, each checked by itself."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints


def _as_text(value: object) -> object:
    # `version: 3.0` without quotes is a number to YAML.
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


Text = Annotated[str, StringConstraints(min_length=1, strip_whitespace=True)]
StrategyName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,127}$")]
SymbolName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.@+-]{0,127}$")]
Share = Annotated[float, Field(gt=0, lt=1)]
Moment = Annotated[str, StringConstraints(pattern=r"^\d{4}-\d{2}-\d{2}([T ].+)?$")]


class Section(BaseModel):
    """One mapping of the file."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    without_effect: ClassVar[Mapping[str, str]] = {}
    """Known keys that do nothing here → why; left out with a warning."""

    former_names: ClassVar[Mapping[str, str]] = {}
    """Spellings that older files use → the key that they mean; accepted with a warning."""

    stand_ins: ClassVar[Mapping[str, Any]] = {}
    """Keys that must be there → what to go on with where they are wrong, to find what else is."""


class StrategySection(Section):
    """The top level."""

    without_effect: ClassVar[Mapping[str, str]] = {
        "deployment": "it says where a model may be used, and does not change its training",
        "scope": "it is not about training",
        "backtest": "it is not about training",
        "hypothesis": "it is not about training",
    }
    stand_ins: ClassVar[Mapping[str, Any]] = {
        "name": "x",
        "training_data": {},
        "indicators": {},
        "nn_inputs": [None],
        "model": {},
        "decisions": {},
        "training": {},
    }

    name: StrategyName
    description: str | None = None
    version: Annotated[str, BeforeValidator(_as_text)] = "3.0"
    training_data: dict[str, Any]
    context_data: list[Any] | None = None
    indicators: dict[str, Any]
    fuzzy_sets: dict[str, Any] = Field(default_factory=dict)
    nn_inputs: Annotated[list[Any], Field(min_length=1)]
    model: dict[str, Any]
    decisions: dict[str, Any]
    training: dict[str, Any]


class TrainingDataSection(Section):
    """``training_data``."""

    without_effect: ClassVar[Mapping[str, str]] = {
        "history_required": "how many bars are needed follows from the indicators and labels",
    }
    stand_ins: ClassVar[Mapping[str, Any]] = {"symbols": {}, "timeframes": {}}

    symbols: dict[str, Any]
    timeframes: dict[str, Any]
    start_date: Moment | None = None
    end_date: Moment | None = None
    date_range: dict[str, Any] | None = None


class DateRangeSection(Section):
    """``training_data.date_range``."""

    start: Moment | None = None
    end: Moment | None = None


class SymbolsSection(Section):
    """``training_data.symbols``."""

    stand_ins: ClassVar[Mapping[str, Any]] = {"mode": "single"}

    mode: Literal["single", "multi_symbol"]
    symbol: SymbolName | None = None
    listed: Annotated[list[SymbolName] | None, Field(alias="list", min_length=1)] = None
    symbols: Annotated[list[SymbolName], Field(min_length=1)] | None = None
    selection_criteria: dict[str, Any] | None = None


class TimeframesSection(Section):
    """``training_data.timeframes``."""

    stand_ins: ClassVar[Mapping[str, Any]] = {"mode": "single"}

    mode: Literal["single", "multi_timeframe"]
    timeframe: Text | None = None
    listed: Annotated[list[Text] | None, Field(alias="list", min_length=1)] = None
    timeframes: Annotated[list[Text], Field(min_length=1)] | None = None
    base_timeframe: Text | None = None


class InputSection(Section):
    """One item of ``nn_inputs``."""

    stand_ins: ClassVar[Mapping[str, Any]] = {"timeframes": "all"}

    fuzzy_set: Text | None = None
    raw_indicator: Text | None = None
    timeframes: Text | Annotated[list[Text], Field(min_length=1)]
    normalization: Literal["none", "minmax", "zscore"] | None = None


class ModelSection(Section):
    """``model``."""

    without_effect: ClassVar[Mapping[str, str]] = {
        "features": "what the network is fed is in nn_inputs",
        "output_activation": "the network gives logits, and its outputs are always a softmax of them",
    }
    stand_ins: ClassVar[Mapping[str, Any]] = {"architecture": {}}

    type: Text = "mlp"
    architecture: dict[str, Any]
    training: dict[str, Any] = Field(default_factory=dict)


class TrainingSection(Section):
    """``training``, and ``model.training`` for what is not there."""

    without_effect: ClassVar[Mapping[str, str]] = {
        "method": "there is one method of training",
        "analytics": "every epoch's metrics are in the model's metadata and report",
        "detailed_analytics": "every epoch's metrics are in the model's metadata and report",
        "progress_update_frequency": "progress is always reported",
        "date_range": "the dates that count are in training_data",
    }
    former_names: ClassVar[Mapping[str, str]] = {"loss_function": "loss"}

    epochs: Annotated[int, Field(ge=1, le=100_000)] = 100
    learning_rate: Annotated[float, Field(gt=0, le=10)] = 0.001
    batch_size: Annotated[int, Field(ge=1)] = 32
    loss: Text | dict[str, Any] | None = None
    focal_gamma: float | None = None
    huber_delta: float | None = None
    data_split: dict[str, Any] | None = None
    validation_split: Share | None = None
    optimizer: Text | dict[str, Any] = "adam"
    weight_decay: Annotated[float, Field(ge=0)] | None = None
    momentum: Annotated[float, Field(ge=0, lt=1)] | None = None
    gradient_clip: Annotated[float, Field(gt=0)] | bool | None = 1.0
    early_stopping: bool | dict[str, Any] | None = None
    lr_scheduler: bool | Text | dict[str, Any] | None = None
    labels: dict[str, Any] = Field(default_factory=dict)


class OptimizerSection(Section):
    """``training.optimizer`` as a mapping."""

    stand_ins: ClassVar[Mapping[str, Any]] = {"type": "adam"}

    type: Text
    learning_rate: Annotated[float, Field(gt=0, le=10)] | None = None
    weight_decay: Annotated[float, Field(ge=0)] | None = None
    momentum: Annotated[float, Field(ge=0, lt=1)] | None = None


class SplitSection(Section):
    """``training.data_split``."""

    train: Share = 0.7
    validation: Share = 0.15
    test: Share | None = None


class EarlyStoppingSection(Section):
    """``training.early_stopping`` as a mapping."""

    enabled: bool = True
    patience: Annotated[int, Field(ge=1)] = 10
    min_delta: Annotated[float, Field(ge=0)] = 0.001
    monitor: Literal["val_loss", "val_accuracy"] = "val_loss"


class SchedulerSection(Section):
    """``training.lr_scheduler`` as a mapping."""

    stand_ins: ClassVar[Mapping[str, Any]] = {"type": "step"}

    enabled: bool = True
    type: Literal["step", "exponential", "reduce_on_plateau"] = "step"
    step_size: Annotated[int, Field(ge=1)] = 30
    gamma: Annotated[float, Field(gt=0, le=1)] | None = None
    factor: Annotated[float, Field(gt=0, lt=1)] = 0.5
    patience: Annotated[int, Field(ge=0)] = 5


class DecisionsSection(Section):
    """``decisions``."""

    without_effect: ClassVar[Mapping[str, str]] = {
        "num_classes": "the number of classes follows from the labels",
        "thresholds": "confidence_threshold is the one for every class",
    }

    output_format: Literal["classification", "regression"] = "classification"
    confidence_threshold: Annotated[float, Field(ge=0, le=1)] | None = None
    cost_model: dict[str, Any] | None = None
    position_awareness: bool = True
    allow_short_from_flat: bool = False
    filters: dict[str, Any] = Field(default_factory=dict)


class FiltersSection(Section):
    """``decisions.filters``."""

    without_effect: ClassVar[Mapping[str, str]] = {
        "volume_filter": "decisions are made on the model's outputs alone",
    }

    min_signal_separation: Annotated[float, Field(ge=0)] = 4.0


class CostModelSection(Section):
    """``decisions.cost_model``."""

    round_trip_cost: Annotated[float, Field(gt=0)]
    min_edge_multiplier: Annotated[float, Field(gt=0)]
