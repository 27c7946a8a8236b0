"""`metadata.json` of a model: what it is and how it was made.

Where a field means what a field of the former ``metadata_v3.json`` meant, it has that name.
Nothing in it depends on when or how fast the training ran, so that equal requests give equal bytes.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from ktrdr.events.base import UtcDatetime
from ktrdr.events.references import DatasetRef

METADATA_VERSION = 1


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class EpochRecord(_Record):
    """One epoch of the history."""

    epoch: Annotated[int, Field(ge=1)]
    train_loss: float
    val_loss: float
    train_accuracy: float | None = None
    """Share of right classes, or of right signs for regression, with dropout on."""
    val_accuracy: float | None = None
    learning_rate: float


class SplitPart(_Record):
    """One part of the chronological split."""

    rows: int
    start: UtcDatetime
    end: UtcDatetime


class SplitRecord(_Record):
    """The split, and what was left out so that no label crosses it."""

    train: SplitPart
    validation: SplitPart
    test: SplitPart
    purged_rows: int


class NormalizationRecord(_Record):
    """Scaling of a raw feature, fitted on the training part: (x - offset) / scale."""

    method: Literal["minmax", "zscore"]
    offset: float
    scale: float


class FeatureRecord(_Record):
    """One input of the network."""

    feature_id: str
    timeframe: str
    indicator: str
    output: str = ""
    data_source: str | None = None
    """The context series that the indicator is computed on; None for bars."""
    fuzzy_set: str | None = None
    membership: str | None = None
    membership_type: str | None = None
    membership_parameters: tuple[float, ...] = ()


class ClassMetrics(_Record):
    """Test metrics of one class."""

    label: str
    support: int
    precision: float
    recall: float
    f1: float


class Versions(_Record):
    """The software that the numbers depend on."""

    ktrdr: str
    python: str
    torch: str
    numpy: str
    pandas: str
    ta_lib: str


class PluginRecord(_Record):
    """An implementation of another distribution, without which the model cannot be used."""

    group: str
    name: str
    distribution: str
    version: str


class ModelMetadata(_Record):
    """Everything about a model that is not a weight."""

    metadata_version: int = METADATA_VERSION
    strategy_name: str
    strategy_version: str
    strategy_sha256: str
    overrides: dict[str, JsonValue] = Field(default_factory=dict)
    effective_strategy: dict[str, JsonValue]
    """The strategy with the overrides applied, as parsed."""
    symbol: str
    timeframe: str
    training_symbols: tuple[str, ...]
    training_timeframes: tuple[str, ...]
    datasets: tuple[DatasetRef, ...]
    output_type: Literal["classification", "regression"]
    model_type: str
    sequence_length: int = 1
    resolved_features: tuple[str, ...]
    """Feature ids in the order of the network's inputs."""
    features: tuple[FeatureRecord, ...]
    normalization_params: dict[str, NormalizationRecord] = Field(default_factory=dict)
    label_source: str
    label_parameters: dict[str, JsonValue]
    classes: tuple[str, ...] = ()
    class_counts: dict[str, dict[str, int]] = Field(default_factory=dict)
    """Part (``train``, ``validation``, ``test``) → class → rows."""
    class_weights: dict[str, float] = Field(default_factory=dict)
    warmup_rows_dropped: int
    """Bars without a value for every feature, of all symbols."""
    window_rows_dropped: int = 0
    """Bars with too few bars before them for a sequence, since the start or a hole."""
    split: SplitRecord
    parameters: int
    """Trainable parameters of the network."""
    training_metrics: dict[str, float]
    """Of the best epoch."""
    test_metrics: dict[str, float]
    baselines: dict[str, dict[str, float]]
    """Baseline (``majority_class`` or ``training_mean``, ``last_return_sign``) → the metrics that apply."""
    per_class: tuple[ClassMetrics, ...] = ()
    confusion: tuple[tuple[int, ...], ...] = ()
    """Rows: true class; columns: predicted class."""
    history: tuple[EpochRecord, ...]
    best_epoch: int
    stopped_early: bool
    weights_sha256: str
    seed: int
    device: str
    threads: int
    versions: Versions
    plugins: tuple[PluginRecord, ...] = ()
    """Indicators, memberships, labels, networks and losses that are not ktrdr's own."""
