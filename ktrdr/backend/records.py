"""What the operations database tells: immutable values, apart from how they are stored."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Self

from ktrdr.backend.states import State
from ktrdr.events import (
    PROTOCOL_VERSION,
    DatasetRef,
    FailureCause,
    FileDigest,
    ModelManifest,
    OperationEvent,
    Packed,
    RunningAttempt,
    StrategyDocument,
    TrainingProgress,
    TrainingRequested,
    pack,
)
from ktrdr.training.execution_mode_selector import Decision, Mode, Place


@dataclass(frozen=True, slots=True)
class SubmitTraining:
    """What a client asks for."""

    strategy: StrategyDocument
    symbol: str
    timeframe: str
    """The base timeframe: with the strategy and the symbol it names the model."""
    datasets: tuple[DatasetRef, ...]
    seed: int
    lane: str = "any"
    require_gpu: bool = False
    max_attempts: int | None = None
    """Default: as the settings say."""
    fingerprint: str | None = None
    """If given, an operation of the same fingerprint that was interrupted is resumed, not submitted anew."""
    decision: Decision | None = None
    """Where it is to run, and why; None: with whom it is submitted to, and nowhere else."""
    idempotency: "Idempotency | None" = None
    """If given, an operation that was submitted under the same key is returned, not another made."""
    retry_of: str | None = None
    """The operation that failed or was cancelled, and that this repeats."""


@dataclass(frozen=True, slots=True)
class Idempotency:
    """What tells that a request is the same as one before."""

    key: str
    """As the client calls it."""
    wish_sha256: str
    """Of what it asks for."""
    preparation: str | None = None
    """What else than the operation the first is answered, as JSON: any other is answered the same."""


@dataclass(frozen=True, slots=True)
class OperationRecord:
    """One operation as of one moment."""

    operation_id: str
    state: State
    revision: int
    """Grows with every change of the operation; not with progress."""
    attempt: int
    max_attempts: int
    strategy: str
    symbol: str
    timeframe: str
    seed: int
    created_at: datetime
    updated_at: datetime
    started_at: datetime | None = None
    """When an agent first accepted it."""
    finished_at: datetime | None = None
    owner: str | None = None
    """On whose bus it is: an instance, or the broker; None while nobody carries it."""
    claim_id: str | None = None
    """The claim that holds, or held last, the current attempt."""
    agent_id: str | None = None
    device: str | None = None
    lease_s: float | None = None
    mode: Mode | None = None
    """Asked for, or the default; None if nothing was decided."""
    place: Place | None = None
    """Where it runs, or ran last."""
    place_reason: str | None = None
    """Why there, in words."""
    cause: FailureCause | None = None
    """Why it failed; only in the state ``failed``."""
    message: str | None = None
    """Why it failed or was cancelled, for people; before that, why its last attempt did not finish, or what
    its result waits for."""
    progress: TrainingProgress | None = None
    """The newest that is known; its ``attempt`` may be an earlier one."""
    model: str | None = None
    """``{strategy}/{symbol}_{timeframe}_v{N}``, once it is completed."""
    metrics: Mapping[str, float] = field(default_factory=dict)
    """Test metrics and baselines of the model."""
    retry_of: str | None = None
    """The operation that it repeats; it may have been forgotten since."""


class HistoryKind(StrEnum):
    """What happened to an operation."""

    SUBMITTED = "submitted"
    RETRIED = "retried"
    """A client asked for it again, as another operation; or it is that one."""
    DECIDED = "decided"
    """Where it runs, and why."""
    FELL_BACK = "fell_back"
    """It was to run on a host, and runs here."""
    RESUMED = "resumed"
    """A client asked again for what another process had left unfinished."""
    TAKEN_OVER = "taken_over"
    DISPATCHED = "dispatched"
    PUBLISH_FAILED = "publish_failed"
    NOT_ACCEPTED = "not_accepted"
    ACCEPTED = "accepted"
    CLAIM_REFUSED = "claim_refused"
    CHECKPOINT_SAVED = "checkpoint_saved"
    ATTEMPT_FAILED = "attempt_failed"
    LEASE_EXPIRED = "lease_expired"
    RETRY = "retry"
    RECONCILED = "reconciled"
    """A run that had been given up is back, and goes on."""
    CANCEL_REQUESTED = "cancel_requested"
    RESULT_REJECTED = "result_rejected"
    """A model did not pass verification."""
    RESULT_WAITS = "result_waits"
    """A model is at hand but cannot be persisted yet: the disk is full, for example."""
    REPORT_FAILED = "report_failed"
    MODEL_PERSISTED = "model_persisted"
    MODEL_DISCARDED = "model_discarded"
    FAILED = "failed"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True)
class HistoryEntry:
    """One thing that happened to an operation."""

    at: datetime
    kind: HistoryKind
    attempt: int
    agent_id: str | None
    message: str


class AgentStatus(StrEnum):
    """What an agent is doing, as far as the backend has heard."""

    READY = "ready"
    """It has a free slot."""
    BUSY = "busy"
    """Every slot is taken."""
    DRAINING = "draining"
    """It takes no more work, and ends when what runs is done."""
    STOPPED = "stopped"
    """It has said that it ends."""
    DETACHED = "detached"
    """It holds attempts and cannot be heard, or could not be until just now: it trains on."""
    SILENT = "silent"
    """It held nothing when it was last heard of, which is too long ago."""

    @property
    def can_be_reached(self) -> bool:
        """Whether the agent was there a moment ago."""
        return self not in (AgentStatus.STOPPED, AgentStatus.SILENT)


@dataclass(frozen=True, slots=True)
class AgentRecord:
    """One host agent as it was last heard of."""

    agent_id: str
    host: str
    """The machine, as the agent names it."""
    status: AgentStatus
    device: str
    device_name: str
    memory_bytes: int
    lanes: tuple[str, ...]
    slots_total: int
    slots_busy: int
    running: tuple[RunningAttempt, ...]
    """What it holds, including what has ended and is still to be told."""
    protocol_version: int
    first_seen: datetime
    started_at: datetime
    """When it was first heard of since it was last stopped."""
    last_seen: datetime
    stopped_at: datetime | None

    @property
    def has_gpu(self) -> bool:
        """Whether it takes what needs a GPU."""
        return self.device not in ("cpu", "unknown")

    @property
    def is_understood(self) -> bool:
        """Whether it speaks this program's version of the protocol."""
        return self.protocol_version == PROTOCOL_VERSION


@dataclass(frozen=True, slots=True)
class Load:
    """How many operations an instance carries that have not ended."""

    waiting: int = 0
    """For an agent."""
    running: int = 0


@dataclass(frozen=True, slots=True)
class ModelRecord:
    """One registered version of a model."""

    name: str
    """``{strategy}/{symbol}_{timeframe}_v{N}``: also its directory under the models directory."""
    operation_id: str
    attempt: int
    strategy: str
    symbol: str
    timeframe: str
    version: int
    bundle_sha256: str
    files: Mapping[str, FileDigest]
    """Every file of the directory but ``SHA256SUMS``."""
    manifest: ModelManifest
    created_at: datetime


@dataclass(frozen=True, slots=True)
class OutgoingEvent:
    """What is to be published: one row of the outbox."""

    event_id: str
    operation_id: str
    owner: str
    """On whose bus."""
    event: OperationEvent
    delay_s: float = 0.0
    """How long to wait from when it was first seen."""
    tries: int = 0
    last_error: str | None = None
    packed: Packed | None = field(default=None, compare=False, repr=False)
    """The event as it is published, if that is at hand."""
    operation: OperationRecord | None = field(default=None, compare=False, repr=False)
    """The operation as it was when this was decided, if that is at hand."""


@dataclass(frozen=True, slots=True)
class NewRequest:
    """The request of a new operation, written once for every place that it goes to."""

    event: TrainingRequested
    json: str
    """As it is recorded."""
    packed: Packed
    """As it is published."""

    @classmethod
    def of(cls, event: TrainingRequested) -> Self:
        """Write a request.

        Raises:
            CodecError: it is too large to be sent.
        """
        return cls(event, event.model_dump_json(), pack(event))


@dataclass(frozen=True, slots=True)
class Submission:
    """What became of a request."""

    operation: OperationRecord
    resumed: bool
    """Whether it is an earlier, interrupted operation that goes on."""
    repeated: bool = False
    """Whether it was submitted before, under the same idempotency key."""
    preparation: str | None = None
    """See `Idempotency`; of one that was submitted before."""
