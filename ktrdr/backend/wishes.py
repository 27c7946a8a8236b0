"""What clients ask to be trained, and what they are answered."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import JsonValue, TypeAdapter, ValidationError

from ktrdr.backend.records import OperationRecord
from ktrdr.errors import Problem, SettingsError
from ktrdr.events.base import Name
from ktrdr.training.execution_mode_selector import Decision, Mode

if TYPE_CHECKING:
    from ktrdr.market.time_range import Moment


@dataclass(frozen=True, slots=True)
class StrategyText:
    """A strategy that is sent along, rather than named."""

    yaml: str
    source: str = "strategy"
    """What to call it in messages."""


@dataclass(frozen=True, slots=True)
class TrainingWish:
    """What a user asks to be trained."""

    strategy: str | Path | StrategyText
    """A file, a name in the strategies directory, or the text itself."""
    start: "Moment" = None
    end: "Moment" = None
    overrides: Mapping[str, JsonValue] = field(default_factory=dict)
    seed: int | None = None
    """None: a random one, which is recorded."""
    lane: str = "any"
    """On hosts, only agents that serve it take the request."""
    require_gpu: bool = False
    """Only what has a GPU takes the request."""
    names_lane: bool = False
    """Whether the lane was chosen: it waits there for a host agent, and never runs elsewhere."""

    def __post_init__(self) -> None:
        """Raise SettingsError for what no lane can be called."""
        _check_lane(self.lane)


@dataclass(frozen=True, slots=True)
class RetryWish:
    """What differs when an operation is repeated; None: as it was."""

    mode: Mode | None = None
    require_gpu: bool | None = None
    lane: str | None = None
    seed: int | None = None

    def __post_init__(self) -> None:
        """Raise SettingsError for what no lane can be called."""
        if self.lane is not None:
            _check_lane(self.lane)


def _check_lane(name: str) -> None:
    try:
        _LANE.validate_python(name)
    except ValidationError as error:
        raise SettingsError(
            f"'{name}' is not the name of a lane.",
            fix="Name one that agents serve (ktrdr agents), of letters, digits and _ . @ + -, as in gpu.",
        ) from error


_LANE: TypeAdapter[str] = TypeAdapter(Name)


@dataclass(frozen=True, slots=True)
class DefaultMode:
    """The mode of trainings for which none is named."""

    mode: Mode
    source: str
    """Who says so, in words."""


@dataclass(frozen=True, slots=True)
class Preparation:
    """What who asks is told of what was prepared for them; nothing of it stops a training."""

    source: str
    """What to call the strategy in messages."""
    warnings: tuple[Problem, ...]
    """What the strategy says to no effect, or in an outdated way."""
    bars: tuple[str, ...]
    """A line for each timeframe: which bars there are, and which are missing."""


@dataclass(frozen=True, slots=True)
class Accepted:
    """A training that nothing loses any more."""

    operation: OperationRecord
    decision: Decision
    """Where it runs, and why, as of when it was accepted."""
    created: bool
    """False: it was asked for before, under the same idempotency key."""
    preparation: Preparation | None = None
    """As of when it was accepted; None: nothing was prepared, as it repeats an operation."""


def digest_of(wanted: object) -> str:
    """Return the SHA-256 that what is wanted has each time that it is wanted.

    Args:
        wanted: of what JSON has; whatever else counts as its text.
    """
    return hashlib.sha256(json.dumps(wanted, default=str, sort_keys=True).encode()).hexdigest()


def stated(wish: "TrainingWish | RetryWish | StrategyText") -> dict[str, object]:
    """Return what a wish says other than by default, by name.

    So one from before there was a certain field is the same as one that leaves it out.
    """
    said: dict[str, object] = {}
    for each in fields(wish):
        value = getattr(wish, each.name)
        default = each.default if each.default_factory is MISSING else each.default_factory()
        if default is MISSING or value != default:
            said[each.name] = stated(value) if isinstance(value, StrategyText) else value
    return said
