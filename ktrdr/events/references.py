"""What events refer to or carry: blobs, datasets, model manifests."""

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from ktrdr.events.base import ByteCount, Count, Name, Part, Seconds, Sha256, UtcDatetime
from ktrdr.events.texts import Line, Metrics

Seed = Annotated[int, Field(ge=0, lt=2**63)]
Timeframe = Annotated[str, StringConstraints(pattern=r"^[1-9][0-9]{0,3}[mhdwM]$")]


MAX_INLINE_BYTES = 8 * 1024 * 1024
"""Of an inline model, compressed; what is larger goes by reference."""


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
    size: ByteCount
    """Bytes as stored."""
    codec: Codec = Codec.NONE


class DatasetKind(StrEnum):
    """What a dataset is."""

    BARS = "bars"
    """Of a symbol and timeframe."""
    CONTEXT = "context"
    """A series beside the bars, each row of which is known from a moment on."""


class DatasetRef(Part):
    """A snapshot of bars, or of a context series: an Arrow (Parquet) blob."""

    kind: DatasetKind = DatasetKind.BARS
    symbol: Name
    """Of context: its source id, as ``fred_DGS2``."""
    timeframe: Timeframe
    """Of context: how far its rows usually are apart."""
    blob: BlobRef
    rows: Count
    start: UtcDatetime
    """Open time of the first bar; of context: when the first row became known."""
    end: UtcDatetime
    """Likewise of the last."""

    @property
    def name(self) -> str:
        """What to call it: ``EURUSD 1h``, ``context fred_DGS2``."""
        is_context = self.kind is DatasetKind.CONTEXT
        return f"context {self.symbol}" if is_context else f"{self.symbol} {self.timeframe}"


class FileDigest(Part):
    """One file of a model bundle."""

    sha256: Sha256
    size: ByteCount


class StageTiming(Part):
    """How long one numbered step took."""

    stage: Line
    seconds: Seconds


class ModelManifest(Part):
    """What is in a model bundle, small enough for every event: the bundle's files hold the rest."""

    strategy: Name
    symbol: Name
    timeframe: Timeframe
    output_format: Literal["classification", "regression"]
    features: tuple[str, ...]
    """Feature ids in the order of the network's inputs."""
    classes: tuple[str, ...] = ()
    """Label names in the order of the outputs; empty for regression."""
    metrics: Metrics
    """Test metrics, and baselines as ``baseline_<name>_<metric>``."""
    epochs_trained: Count
    best_epoch: Count
    """1-based; the epoch whose weights are kept."""
    train_rows: Count
    validation_rows: Count
    test_rows: Count
    parameters: Count
    strategy_sha256: Sha256
    weights_sha256: Sha256
    """Of ``model.safetensors``."""
    bundle_sha256: Sha256
    """Of the packed bundle before compression."""
    bundle_size: ByteCount
    """Bytes of the packed bundle before compression."""
    files: dict[Name, FileDigest]
    seed: Seed
    device: Line
    timings: tuple[StageTiming, ...] = ()
    peak_memory_bytes: ByteCount = 0
    """Highest resident memory of the runner process during the attempt."""


class InlineModel(Part):
    """A packed model bundle that travels in the event itself."""

    codec: Codec
    data: Annotated[bytes, Field(max_length=MAX_INLINE_BYTES, repr=False)]
    """The packed bundle, compressed by ``codec``."""
