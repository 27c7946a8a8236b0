"""Every event of the protocol. Fields are declared here and nowhere else; `schemas/` is generated."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field, StringConstraints, model_validator

from ktrdr.events.base import (
    ByteCount,
    ClaimEvent,
    Count,
    Event,
    Name,
    OperationEvent,
    OperationId,
    Ordinal,
    Part,
    PositiveSeconds,
    Seconds,
    Sha256,
    UtcDatetime,
)
from ktrdr.events.causes import FailureCause
from ktrdr.events.log_lines import LogEntry
from ktrdr.events.references import BlobRef, DatasetRef, InlineModel, ModelManifest, Seed
from ktrdr.events.texts import Line, Metrics, Overrides, Text, TextTail

PROTOCOL_VERSION = 1
MAX_LINES = 200
MAX_EARLIER = 200
"""Epochs of one event."""
MAX_METRICS = 32
"""Of one epoch."""
MAX_LOGGED_CHARACTERS = 128 * 1024
"""Of the lines of one event."""

_MODEL_NAME = r"^[A-Za-z0-9][A-Za-z0-9_.@+-]{0,127}/[A-Za-z0-9][A-Za-z0-9_.@+-]{0,255}$"


class StrategyDocument(Part):
    """A strategy as the user wrote it, and what the request changes in it."""

    name: Name
    yaml: Annotated[str, StringConstraints(max_length=1024 * 1024)]
    sha256: Sha256
    """Of the UTF-8 bytes of ``yaml``."""
    overrides: Overrides = Field(default_factory=dict)
    """Dotted path → value, applied in order to the parsed YAML before validation."""


class TrainingRequested(OperationEvent):
    """The backend asks for one attempt at training a strategy."""

    type: ClassVar[str] = "ktrdr.training.requested"

    strategy: StrategyDocument
    datasets: Annotated[tuple[DatasetRef, ...], Field(min_length=1)]
    seed: Seed
    lane: Name = "any"
    """Only agents that serve this lane get it."""
    require_gpu: bool = False
    resume_from: BlobRef | None = None
    requested_at: UtcDatetime
    accept_within_s: PositiveSeconds
    """The backend dispatches anew when nobody has accepted after so long."""

    def summary(self) -> str:
        """Return who is to be trained on what."""
        data = ", ".join(dataset.name for dataset in self.datasets)
        return f"train {self.strategy.name} on {data} · attempt {self.attempt} · seed {self.seed}"


class TrainingAccepted(ClaimEvent):
    """An agent has taken the request and will run it."""

    type: ClassVar[str] = "ktrdr.training.accepted"

    slot: Ordinal
    device: Line
    lease_s: PositiveSeconds

    def summary(self) -> str:
        """Return who runs it where."""
        return f"attempt {self.attempt} accepted by {self.agent_id}/slot-{self.slot} on {self.device}"


class EpochMetrics(Part):
    """What came of one complete epoch."""

    epoch: Ordinal
    metrics: Annotated[Metrics, Field(max_length=MAX_METRICS)]


class TrainingProgress(ClaimEvent):
    """Where a running attempt is; newest wins."""

    type: ClassVar[str] = "ktrdr.training.progress"
    durable: ClassVar[bool] = False

    sequence: Count
    """Grows within a claim, so that a late event is known to be old."""
    stage: Line
    stage_number: Ordinal
    stages: Ordinal
    epoch: Count = 0
    """Epochs complete."""
    epochs: Count = 0
    batch: Count = 0
    batches: Count = 0
    metrics: Metrics = Field(default_factory=dict)
    """Of the last complete epoch: ``train_loss``, ``val_loss``, ``val_accuracy``, …"""
    earlier: Annotated[tuple[EpochMetrics, ...], Field(max_length=MAX_EARLIER)] = ()
    """Epochs before that one, of which no event has told yet."""
    fraction: Annotated[float, Field(ge=0, le=1)]
    eta_s: Seconds | None = None

    def summary(self) -> str:
        """Return stage, epoch and losses."""
        parts = [f"attempt {self.attempt}", f"[{self.stage_number}/{self.stages}] {self.stage}"]
        if self.epochs:
            parts.append(f"epoch {self.epoch}/{self.epochs}")
        parts += [f"{name} {value:.4g}" for name, value in self.metrics.items() if name.endswith("loss")]
        return " · ".join(parts)


class TrainingLogged(ClaimEvent):
    """Lines that were logged about a running attempt; not all of them, if there were many."""

    type: ClassVar[str] = "ktrdr.training.logged"
    durable: ClassVar[bool] = False

    lines: Annotated[tuple[LogEntry, ...], Field(min_length=1, max_length=MAX_LINES)]
    """In their order."""

    @model_validator(mode="after")
    def _not_too_much(self) -> "TrainingLogged":
        if sum(line.characters for line in self.lines) > MAX_LOGGED_CHARACTERS:
            raise ValueError(f"the lines have more than {MAX_LOGGED_CHARACTERS:,} characters")
        return self

    def summary(self) -> str:
        """Return how many lines, and the last."""
        what = "1 line" if len(self.lines) == 1 else f"{len(self.lines)} lines"
        return f"attempt {self.attempt} · {what} · {self.lines[-1].event[:200]}"


class CheckpointSaved(ClaimEvent):
    """An attempt can be continued from this epoch."""

    type: ClassVar[str] = "ktrdr.training.checkpoint_saved"

    epoch: Ordinal
    checkpoint: BlobRef

    def summary(self) -> str:
        """Return the epoch and size."""
        return f"attempt {self.attempt} · checkpoint of epoch {self.epoch} · {self.checkpoint.size:,} B"


class ModelReady(ClaimEvent):
    """An attempt has made a model; it is in this event or in the blob store, never both."""

    type: ClassVar[str] = "ktrdr.training.model_ready"

    manifest: ModelManifest
    inline: InlineModel | None = None
    blob: BlobRef | None = None

    @model_validator(mode="after")
    def _one_of_both(self) -> "ModelReady":
        if (self.inline is None) == (self.blob is None):
            raise ValueError("exactly one of 'inline' and 'blob' must be given")
        return self

    def summary(self) -> str:
        """Return the model's name, size and where it is."""
        model = self.manifest
        where = "inline" if self.inline is not None else "by reference"
        return f"{model.strategy} {model.symbol} {model.timeframe} · {model.bundle_size:,} B {where}"


class TrainingFailed(ClaimEvent):
    """An attempt ended without a model."""

    type: ClassVar[str] = "ktrdr.training.failed"

    cause: FailureCause
    message: Text
    traceback: TextTail | None = None
    """Its tail, for causes that are defects."""
    epoch: Count = 0

    def summary(self) -> str:
        """Return the cause and the first line of the message."""
        first_line = self.message.partition("\n")[0][:200]
        return f"attempt {self.attempt} failed: {self.cause}: {first_line}"


class TrainingCancelled(ClaimEvent):
    """An attempt stopped because it was told to."""

    type: ClassVar[str] = "ktrdr.training.cancelled"

    epoch: Count = 0
    """Epochs that were complete."""

    def summary(self) -> str:
        """Return how far it came."""
        return f"attempt {self.attempt} cancelled after {self.epoch} epochs"


class CancelRequested(OperationEvent):
    """The backend tells whoever runs the attempt to stop; sent again to each who accepts it later."""

    type: ClassVar[str] = "ktrdr.control.cancel_requested"

    claim_id: Name | None = None
    """Only this claim is to stop (another holds the grant); None stops every claim of the attempt."""
    reason: Text

    def summary(self) -> str:
        """Return the reason."""
        return f"stop attempt {self.attempt}: {self.reason}"


class ModelPersisted(OperationEvent):
    """The model is safe in the backend's registry; the agent may clear its spool."""

    type: ClassVar[str] = "ktrdr.training.model_persisted"

    claim_id: Name
    model: Annotated[str, StringConstraints(pattern=_MODEL_NAME)]
    """``{strategy}/{symbol}_{timeframe}_v{N}``."""
    model_version: Ordinal
    bundle_sha256: Sha256

    def summary(self) -> str:
        """Return the model's name."""
        return f"persisted {self.model}"


class ModelDiscarded(OperationEvent):
    """The result is not wanted (any more); the agent may clear its spool."""

    type: ClassVar[str] = "ktrdr.training.model_discarded"

    claim_id: Name
    reason: Text

    def summary(self) -> str:
        """Return the reason."""
        return f"attempt {self.attempt} discarded: {self.reason}"


class RunningAttempt(Part):
    """An attempt that an agent holds right now."""

    operation_id: OperationId
    attempt: Ordinal
    claim_id: Name
    detached: bool = False
    """Whether the agent could not renew for two thirds of the lease."""


class AgentPresence(Event):
    """An agent says that it is there and what it holds, which renews those leases."""

    type: ClassVar[str] = "ktrdr.agent.presence"
    durable: ClassVar[bool] = False

    agent_id: Name
    protocol_version: Ordinal = PROTOCOL_VERSION
    state: Literal["ready", "draining", "stopped"]
    device: Line
    device_name: Line = ""
    memory_bytes: ByteCount = 0
    lanes: tuple[Name, ...]
    slots_total: Ordinal
    slots_busy: Count
    running: tuple[RunningAttempt, ...] = ()

    def summary(self) -> str:
        """Return state, device and slots."""
        return f"{self.agent_id} {self.state} · {self.device} · {self.slots_busy}/{self.slots_total} slots"


EVENT_TYPES: tuple[type[Event], ...] = (
    TrainingRequested,
    TrainingAccepted,
    TrainingProgress,
    TrainingLogged,
    CheckpointSaved,
    ModelReady,
    TrainingFailed,
    TrainingCancelled,
    CancelRequested,
    ModelPersisted,
    ModelDiscarded,
    AgentPresence,
)
