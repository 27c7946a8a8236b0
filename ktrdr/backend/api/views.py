"""Operations as clients read them, under the names that those of the former system know."""

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, Field, JsonValue

from ktrdr.backend.instances import BROKER_OWNER
from ktrdr.backend.listing import AttemptRecord, NumberedEntry
from ktrdr.backend.records import OperationRecord
from ktrdr.backend.states import State
from ktrdr.events import DatasetKind, TrainingProgress, TrainingRequested
from ktrdr.training.execution_mode_selector import Mode, Place

Status = Literal["pending", "running", "completed", "failed", "cancelled"]

STATUS: dict[State, Status] = {
    State.PENDING: "pending",
    State.QUEUED: "pending",
    State.RUNNING: "running",
    State.CANCELLING: "running",
    State.COMPLETED: "completed",
    State.FAILED: "failed",
    State.CANCELLED: "cancelled",
}
"""The statuses of the former system, which tells less apart."""


class ProgressView(BaseModel):
    """How far an operation is."""

    percentage: float = Field(0.0, ge=0, le=100)
    current_step: str | None = None
    steps_completed: int = 0
    steps_total: int = 0
    items_processed: int = Field(0, description="Epochs complete.")
    items_total: int | None = Field(None, description="Epochs at most.")
    current_item: str | None = None
    context: dict[str, JsonValue] = Field(
        default_factory=dict, description="Attempt, epoch, batch, the last epoch's metrics, seconds left."
    )


class MetadataView(BaseModel):
    """What an operation works on."""

    symbol: str
    timeframe: str
    mode: str = Field(description="Where it runs: `local` or `host`.")
    start_date: datetime | None = None
    end_date: datetime | None = None
    parameters: dict[str, JsonValue] = Field(default_factory=dict)


class PlaceView(BaseModel):
    """Where an operation runs, and why."""

    mode: Mode | None = Field(description="What was asked for, or the default when it was submitted.")
    where: Place
    reason: str | None


class OperationSummary(BaseModel):
    """One operation in a list."""

    operation_id: str
    operation_type: Literal["training"] = "training"
    status: Status
    state: State = Field(description="The same in more detail: `queued` and `cancelling` are told apart.")
    strategy_name: str
    symbol: str
    timeframe: str
    created_at: datetime
    started_at: datetime | None
    completed_at: datetime | None
    duration_seconds: float | None = Field(description="From its start to its end, or to its last change.")
    progress_percentage: float = Field(ge=0, le=100)
    current_step: str | None
    attempt: int
    agent_id: str | None
    model: str | None = Field(description="`{strategy}/{symbol}_{timeframe}_v{N}`, once it is completed.")
    error_message: str | None


class AttemptView(BaseModel):
    """One attempt that an agent accepted."""

    attempt: int
    agent_id: str
    device: str
    accepted_at: datetime
    ended_at: datetime | None
    outcome: str | None


class HistoryView(BaseModel):
    """One thing that happened to an operation."""

    id: int = Field(description="Grows; what `Last-Event-ID` counts by.")
    at: datetime
    kind: str
    attempt: int
    agent_id: str | None
    message: str


class OperationDetail(OperationSummary):
    """One operation as it is."""

    parent_operation_id: str | None = None
    retry_of: str | None = Field(None, description="The operation that it repeats.")
    progress: ProgressView
    metadata: MetadataView
    decision: PlaceView | None = Field(
        description="Where it runs now: it may have fallen back; the history has the whole story."
    )
    max_attempts: int
    seed: int
    device: str | None
    cause: str | None = Field(description="Why it failed, for programs.")
    message: str | None = Field(description="Why it failed or was cancelled, or what it waits for.")
    warnings: list[str] = Field(default_factory=list)
    errors: list[str] = Field(default_factory=list)
    result_summary: dict[str, JsonValue] | None = None
    metrics: dict[str, float] | None = Field(None, description="Test metrics and baselines of the model.")


class OperationStory(OperationDetail):
    """One operation with everything that happened to it."""

    waits_for: str | None = Field(description="What it waits for, in words, while nobody runs it.")
    attempts: list[AttemptView]
    history: list[HistoryView]


def summary(record: OperationRecord) -> OperationSummary:
    """Return an operation as lists show it."""
    return OperationSummary(**_summary(record))


def detail(record: OperationRecord, request: TrainingRequested | None = None) -> OperationDetail:
    """Return an operation, with its dates if its request is at hand."""
    return OperationDetail(**_detail(record, request))


def story(
    record: OperationRecord,
    request: TrainingRequested,
    *,
    attempts: list[AttemptRecord],
    history: list[NumberedEntry],
    waits_for: str,
) -> OperationStory:
    """Return an operation with everything that happened to it."""
    return OperationStory(
        **_detail(record, request),
        waits_for=waits_for or None,
        attempts=[AttemptView.model_validate(each, from_attributes=True) for each in attempts],
        history=[history_view(entry) for entry in history],
    )


def history_view(numbered: NumberedEntry) -> HistoryView:
    """Return one entry of a history."""
    entry = numbered.entry
    return HistoryView(
        id=numbered.number,
        at=entry.at,
        kind=entry.kind,
        attempt=entry.attempt,
        agent_id=entry.agent_id,
        message=entry.message,
    )


def _summary(record: OperationRecord) -> dict[str, Any]:
    progress = _progress(record)
    started, last = record.started_at, record.finished_at or record.updated_at
    return {
        "operation_id": record.operation_id,
        "status": STATUS[record.state],
        "state": record.state,
        "strategy_name": record.strategy,
        "symbol": record.symbol,
        "timeframe": record.timeframe,
        "created_at": record.created_at,
        "started_at": started,
        "completed_at": record.finished_at,
        "duration_seconds": max((last - started).total_seconds(), 0.0) if started is not None else None,
        "progress_percentage": progress.percentage,
        "current_step": progress.current_step,
        "attempt": record.attempt,
        "agent_id": record.agent_id,
        "model": record.model,
        "error_message": record.message if record.state is State.FAILED else None,
    }


def _detail(record: OperationRecord, request: TrainingRequested | None) -> dict[str, Any]:
    failed = record.state is State.FAILED
    datasets = request.datasets if request is not None else ()
    bars = [dataset for dataset in datasets if dataset.kind is DatasetKind.BARS]
    return {
        **_summary(record),
        "progress": _progress(record),
        "metadata": MetadataView(
            symbol=record.symbol,
            timeframe=record.timeframe,
            mode=record.place or (Place.HOST if record.owner == BROKER_OWNER else Place.LOCAL),
            start_date=min((each.start for each in bars), default=None),
            end_date=max((each.end for each in bars), default=None),
            parameters={"strategy_name": record.strategy, "seed": record.seed},
        ),
        "decision": PlaceView(mode=record.mode, where=record.place, reason=record.place_reason)
        if record.place is not None
        else None,
        "retry_of": record.retry_of,
        "max_attempts": record.max_attempts,
        "seed": record.seed,
        "device": record.device,
        "cause": record.cause,
        "message": record.message,
        "errors": [record.message] if failed and record.message is not None else [],
        "result_summary": {"model": record.model, "metrics": dict(record.metrics)} if record.model else None,
        "metrics": dict(record.metrics) or None,
    }


def _progress(record: OperationRecord) -> ProgressView:
    if record.state is State.COMPLETED:
        return _in_words(record.progress, percentage=100.0)
    return _in_words(record.progress)


def _in_words(progress: TrainingProgress | None, percentage: float | None = None) -> ProgressView:
    if progress is None:
        return ProgressView(percentage=percentage or 0.0)
    is_over = percentage is not None
    return ProgressView(
        percentage=percentage if percentage is not None else 100 * progress.fraction,
        current_step=progress.stage,
        steps_completed=progress.stages if is_over else progress.stage_number - 1,
        steps_total=progress.stages,
        items_processed=progress.epoch,
        items_total=progress.epochs or None,
        current_item=f"epoch {progress.epoch}/{progress.epochs}" if progress.epochs else None,
        context={
            "attempt": progress.attempt,
            "epoch_index": progress.epoch,
            "total_epochs": progress.epochs,
            "batch_index": progress.batch,
            "total_batches": progress.batches,
            "metrics": dict(progress.metrics),
            "eta_seconds": progress.eta_s,
        },
    )
