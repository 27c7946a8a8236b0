"""What events refer to or carry: blobs, datasets, model manifests."""

from enum import StrEnum
from typing import Annotated

from pydantic import Field, StringConstraints

from ktrdr.events.base import Name, Part, Sha256, UtcDatetime

Timeframe = Annotated[str, StringConstraints(pattern=r"^[1-9][0-9]{0,3}[mhdwM]$")]


class Codec(StrEnum):
    """How the bytes of a blob or an inline model are stored."""

    NONE = "none"
    ZSTD = "zstd"


class BlobRef(Part):
    """A claim check: where large content lies, and what it must be."""

    uri: Annotated[str, StringConstraints(max_length=1024)]
    """``blob:<sha256>`` in the shared store; other forms only within the configured stores."""
    sha256: Sha256
    """Of the content as stored, that is after compression."""
    size: Annotated[int, Field(ge=0)]
    """Bytes as stored."""
    codec: Codec = Codec.NONE


class DatasetRef(Part):
    """A snapshot of the bars of one symbol and timeframe: an Arrow (Parquet) blob."""

    symbol: Name
    timeframe: Timeframe
    blob: BlobRef
    rows: Annotated[int, Field(ge=0)]
    start: UtcDatetime
    """Open time of the first bar."""
    end: UtcDatetime
    """Open time of the last bar."""


class FileDigest(Part):
    """One file of a model bundle."""

    sha256: Sha256
    size: Annotated[int, Field(ge=0)]


class StageTiming(Part):
    """How long one numbered step took."""

    stage: str
    seconds: Annotated[float, Field(ge=0)]


class ModelManifest(Part):
    """What is in a model bundle, small enough for every event: the bundle's files hold the rest."""

    strategy: Name
    symbol: Name
    timeframe: Timeframe
    output_format: Annotated[str, StringConstraints(pattern=r"^(classification|regression)$")]
    features: tuple[str, ...]
    """Feature ids in the order of the network's inputs."""
    classes: tuple[str, ...] = ()
    """Label names in the order of the outputs; empty for regression."""
    metrics: dict[str, float]
    """Test metrics, and baselines as ``baseline_<name>_<metric>``."""
    epochs_trained: Annotated[int, Field(ge=0)]
    best_epoch: Annotated[int, Field(ge=0)]
    """1-based; the epoch whose weights are kept."""
    train_rows: Annotated[int, Field(ge=0)]
    validation_rows: Annotated[int, Field(ge=0)]
    test_rows: Annotated[int, Field(ge=0)]
    parameters: Annotated[int, Field(ge=0)]
    strategy_sha256: Sha256
    weights_sha256: Sha256
    """Of ``model.safetensors``."""
    bundle_sha256: Sha256
    """Of the packed bundle before compression."""
    bundle_size: Annotated[int, Field(ge=0)]
    """Bytes of the packed bundle before compression."""
    files: dict[Name, FileDigest]
    seed: int
    device: str
    timings: tuple[StageTiming, ...] = ()
    peak_memory_bytes: Annotated[int, Field(ge=0)] = 0
    """Highest resident memory of the runner process during the attempt."""


class InlineModel(Part):
    """A packed model bundle that travels in the event itself."""

    codec: Codec
    data: bytes
    """The packed bundle, compressed by ``codec``."""
