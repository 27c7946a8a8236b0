"""What is said between backend and agents: event classes, messages, codec."""

from ktrdr.events.base import ClaimEvent, Event, Name, OperationEvent, OperationId, Sha256
from ktrdr.events.causes import FailureCause
from ktrdr.events.codec import Envelope, decode, encode
from ktrdr.events.log_lines import LogEntry
from ktrdr.events.message import HeaderValue, Message
from ktrdr.events.references import (
    BlobRef,
    Codec,
    DatasetRef,
    FileDigest,
    InlineModel,
    ModelManifest,
    StageTiming,
)
from ktrdr.events.training import (
    EVENT_TYPES,
    PROTOCOL_VERSION,
    AgentPresence,
    CancelRequested,
    CheckpointSaved,
    ModelDiscarded,
    ModelPersisted,
    ModelReady,
    RunningAttempt,
    StrategyDocument,
    TrainingAccepted,
    TrainingCancelled,
    TrainingFailed,
    TrainingLogged,
    TrainingProgress,
    TrainingRequested,
)

__all__ = [
    "EVENT_TYPES",
    "PROTOCOL_VERSION",
    "AgentPresence",
    "BlobRef",
    "CancelRequested",
    "CheckpointSaved",
    "ClaimEvent",
    "Codec",
    "DatasetRef",
    "Envelope",
    "Event",
    "FailureCause",
    "FileDigest",
    "HeaderValue",
    "InlineModel",
    "LogEntry",
    "Message",
    "ModelDiscarded",
    "ModelManifest",
    "ModelPersisted",
    "ModelReady",
    "Name",
    "OperationEvent",
    "OperationId",
    "RunningAttempt",
    "Sha256",
    "StageTiming",
    "StrategyDocument",
    "TrainingAccepted",
    "TrainingCancelled",
    "TrainingFailed",
    "TrainingLogged",
    "TrainingProgress",
    "TrainingRequested",
    "decode",
    "encode",
]
