"""What the executor is given and what it returns."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import JsonValue

from ktrdr.events.references import DatasetRef, ModelManifest


@dataclass(frozen=True, slots=True)
class Dataset:
    """A snapshot of bars, or of a context series, on this machine's disk, its hash already verified."""

    ref: DatasetRef
    path: Path


@dataclass(frozen=True, slots=True)
class TrainingJob:
    """One attempt at training one strategy: everything that decides the result."""

    operation_id: str
    attempt: int
    strategy_name: str
    """The name under which the user knows the strategy (the file's stem)."""
    strategy_yaml: str
    datasets: tuple[Dataset, ...]
    seed: int
    overrides: Mapping[str, JsonValue] = field(default_factory=dict)
    """Dotted path → value, on top of the YAML."""
    device: str = "cpu"
    """A torch device: ``cpu``, ``cuda``, ``cuda:1``, ``mps``."""
    threads: int = 1


@dataclass(frozen=True, slots=True)
class TrainedModel:
    """What an attempt made."""

    manifest: ModelManifest
    bundle: bytes
    """The packed bundle, not compressed; `ktrdr.models.bundle.unpack` reads it."""
