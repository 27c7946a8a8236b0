"""What is to be computed: the features of a strategy, resolved."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from ktrdr.features.indicators import Indicator
from ktrdr.features.memberships import Membership

Normalization = Literal["none", "minmax", "zscore"]


@dataclass(frozen=True, slots=True)
class FeatureColumn:
    """One input of the network: a membership of an indicator's output, or the output itself."""

    feature_id: str
    """``{timeframe}_{fuzzy_set}_{membership}``, or ``{timeframe}_{indicator}[.{output}]_raw``."""
    timeframe: str
    indicator_id: str
    output: str
    """Name of the indicator's output; the empty string for an indicator with one."""
    fuzzy_set: str | None = None
    membership_name: str | None = None
    membership: Membership | None = None
    """None for a raw indicator."""
    normalization: Normalization = "none"
    """Of a raw indicator; fitted on the training part."""


@dataclass(frozen=True, slots=True)
class FeaturePlan:
    """All features, in the order of the network's inputs."""

    base_timeframe: str
    """Rows of the feature matrix are its bars."""
    indicators: Mapping[str, Indicator]
    columns: tuple[FeatureColumn, ...]
    sources: Mapping[str, str] = field(default_factory=dict)
    """Indicator id → the context series that it is computed on; the others are computed on bars."""

    @property
    def feature_ids(self) -> tuple[str, ...]:
        """Ids in the order of the columns."""
        return tuple(column.feature_id for column in self.columns)

    @property
    def timeframes(self) -> tuple[str, ...]:
        """Every timeframe that is needed, the base timeframe first."""
        return tuple(dict.fromkeys([self.base_timeframe, *(column.timeframe for column in self.columns)]))

    @property
    def context_sources(self) -> tuple[str, ...]:
        """Every context series that is needed, in the order of the columns."""
        used = (self.sources.get(column.indicator_id) for column in self.columns)
        return tuple(dict.fromkeys(source for source in used if source is not None))

    def warmup_rows(self, source: str) -> int:
        """Return how many rows of a context series pass before all that is computed on it has a value."""
        return max(self.indicators[name].warmup_bars for name, on in self.sources.items() if on == source)
