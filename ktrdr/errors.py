"""Every error that a caller can act on.

::

    KtrdrError
    ├── StrategyError            the strategy file is wrong (a list of problems with their lines)
    ├── UnknownNameError         no indicator, label, network, … has that name
    ├── PluginError              one of another distribution cannot be used, or is not installed
    ├── DataError                the market data cannot be used
    │   └── DataGoneError
    ├── TrainingError            training itself cannot go on
    │   ├── TrainingCancelledError
    │   ├── DivergedError
    │   └── OutOfMemoryError     also a MemoryError
    ├── CodecError               a message cannot be read or written
    │   ├── UnencodableError
    │   ├── UndecodableError
    │   ├── OversizedError
    │   └── UnknownEventError
    ├── BusError                 a message did not get through
    │   ├── UnroutableError
    │   ├── PublishNackedError
    │   ├── PublishTimeoutError
    │   │   └── PublishBlockedError
    │   ├── BusUnavailableError
    │   │   └── BusClosedError
    │   ├── AccessRefusedError
    │   ├── QueueTakenError
    │   └── DeadLetterNotFoundError
    ├── BlobError
    │   ├── BlobMissingError
    │   ├── BlobCorruptError
    │   ├── BlobRefusedError
    │   └── BlobUnavailableError
    ├── ModelError
    │   ├── ModelNotFoundError
    │   └── ModelCorruptError
    ├── StoreError
    │   ├── OperationNotFoundError
    │   ├── OperationFailedError
    │   ├── OperationCancelledError
    │   ├── IdempotencyError
    │   ├── NotRetryableError
    │   ├── ResultsHeldUpError
    │   └── DatabaseUnavailableError
    ├── AgentError
    │   └── RunnerCrashedError
    ├── NowhereToTrainError      nothing that is there can train this
    ├── ServerError              a server elsewhere does not do it
    │   └── ServerUnreachableError
    ├── StorageFullError         a disk is full
    └── SettingsError            a setting is wrong
"""

from collections.abc import Sequence
from dataclasses import dataclass
from inspect import cleandoc
from pathlib import Path
from typing import ClassVar


class KtrdrError(Exception):
    """Something went wrong."""

    retryable: ClassVar[bool] = False

    def __init__(self, message: str | None = None, *, fix: str | None = None) -> None:
        self.message = message or cleandoc(type(self).__doc__ or "").splitlines()[0]
        self.fix = fix
        """What to do about it, in one imperative sentence."""
        super().__init__(self.message)

    def __str__(self) -> str:
        return f"{self.message} {self.fix}" if self.fix else self.message


# --- strategy -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong in a strategy file."""

    path: str
    """Dotted path of the key, as in ``indicators.rsi_14.period``; empty for the whole file."""
    message: str
    line: int | None = None
    column: int | None = None
    suggestion: str | None = None
    """The nearest valid name, where there is one."""

    def describe(self, source: str) -> str:
        """One line for people: ``file:line:column: path: message (did you mean 'x'?)``."""
        where = source if self.line is None else f"{source}:{self.line}:{self.column or 1}"
        hint = f" (did you mean '{self.suggestion}'?)" if self.suggestion else ""
        key = f"{self.path}: " if self.path else ""
        return f"{where}: {key}{self.message}{hint}"


class StrategyError(KtrdrError):
    """The strategy cannot be used."""

    def __init__(self, source: str | Path, problems: Sequence[Problem]) -> None:
        self.source = str(source)
        self.problems = tuple(problems)
        super().__init__("\n".join(problem.describe(self.source) for problem in self.problems))


class UnknownNameError(KtrdrError):
    """No such name is registered."""

    def __init__(self, kind: str, name: str, available: Sequence[str], nearest: str | None) -> None:
        self.kind = kind
        self.name = name
        self.available = tuple(available)
        self.nearest = nearest
        super().__init__(
            f"unknown {kind} '{name}'; available: {', '.join(self.available)}",
            fix=f"Did you mean '{nearest}'?" if nearest else None,
        )


class PluginError(KtrdrError):
    """A plug-in cannot be used."""


# --- data and training ----------------------------------------------------------------------------


class DataError(KtrdrError):
    """The market data cannot be used."""


class DataGoneError(DataError):
    """The bars that were recorded are not in the blob store any more."""


class TrainingError(KtrdrError):
    """Training cannot go on."""


class TrainingCancelledError(TrainingError):
    """Training was cancelled."""

    def __init__(self, epoch: int = 0) -> None:
        self.epoch = epoch
        """Epochs that were complete when the cancellation took effect."""
        super().__init__(f"Training was cancelled after {epoch} epochs.")


class DivergedError(TrainingError):
    """The loss is no longer a finite number."""


class OutOfMemoryError(TrainingError, MemoryError):
    """There is not enough memory on this machine or its device."""

    retryable = True


# --- messages -------------------------------------------------------------------------------------


class CodecError(KtrdrError):
    """A message cannot be read or written."""


class UnencodableError(CodecError):
    """An event holds a value that a message has no form for."""


class UndecodableError(CodecError):
    """The body of a message is not what its content type says."""


class OversizedError(CodecError):
    """A message, or what it would decompress to, is over the size limit."""


class UnknownEventError(CodecError):
    """A message has a type or a version that this program does not know."""


class BusError(KtrdrError):
    """A message did not get through."""

    retryable = True


class UnroutableError(BusError):
    """No queue is bound for this message, so it was returned."""


class PublishNackedError(BusError):
    """The broker refused the message."""


class PublishTimeoutError(BusError):
    """The broker did not confirm in time; whether it has the message is unknown."""


class PublishBlockedError(PublishTimeoutError):
    """The broker takes no messages at the moment: it is short of memory or disk."""


class AccessRefusedError(BusError):
    """The broker does not know this user, or does not let it do this."""


class QueueTakenError(BusError):
    """The queue belongs to another connection alone."""


class DeadLetterNotFoundError(BusError):
    """There is no such dead letter."""

    retryable = False


class BusUnavailableError(BusError):
    """There is no connection to the broker."""


class BusClosedError(BusUnavailableError):
    """This bus was closed, and nothing more comes through it."""

    retryable = False


# --- storage --------------------------------------------------------------------------------------


class BlobError(KtrdrError):
    """A blob cannot be used."""


class BlobMissingError(BlobError):
    """The blob store has no blob of that hash."""


class BlobCorruptError(BlobError):
    """The content of a blob is not what its reference says."""


class BlobRefusedError(BlobError):
    """A blob reference names a place outside the configured stores."""


class BlobUnavailableError(BlobError):
    """The blob store does not answer, or not to us."""

    retryable = True


class ModelError(KtrdrError):
    """A model cannot be used."""


class ModelNotFoundError(ModelError):
    """There is no such model."""


class ModelCorruptError(ModelError):
    """A model's files are not what was persisted."""


class StoreError(KtrdrError):
    """The operations database cannot do this."""


class OperationNotFoundError(StoreError):
    """There is no such operation."""


class OperationFailedError(StoreError):
    """The operation ended without a model."""


class OperationCancelledError(StoreError):
    """The operation was cancelled."""


class IdempotencyError(StoreError):
    """Another request was submitted under that idempotency key."""


class NotRetryableError(StoreError):
    """Only what has failed or was cancelled is repeated."""


class ResultsHeldUpError(StoreError):
    """Results are not taken, and wait."""

    retryable = True


class DatabaseUnavailableError(StoreError):
    """The operations database cannot be reached."""

    retryable = True


class AgentError(KtrdrError):
    """The host agent cannot do this."""


class RunnerCrashedError(AgentError):
    """The runner process ended without a result."""

    retryable = True


class NowhereToTrainError(KtrdrError):
    """Nothing that is there can train this."""

    retryable = True


class ServerError(KtrdrError):
    """The server does not do this."""

    def __init__(self, message: str | None = None, *, fix: str | None = None, code: str = "") -> None:
        self.code = code
        """As the server says it, for programs; empty if it did not."""
        super().__init__(message, fix=fix)


class ServerUnreachableError(ServerError):
    """The server cannot be reached."""

    retryable = True


class StorageFullError(KtrdrError):
    """The disk is full."""

    retryable = True


class SettingsError(KtrdrError):
    """A setting is wrong."""
