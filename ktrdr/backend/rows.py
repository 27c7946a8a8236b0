"""Rows of the database to records."""

import json
from collections.abc import Mapping
from typing import Any

from pydantic import TypeAdapter
from sqlalchemy import Row, Select, select

from ktrdr.backend.records import HistoryEntry, HistoryKind, ModelRecord, OperationRecord
from ktrdr.backend.states import State
from ktrdr.backend.tables import models, operation_history, operation_progress, operations
from ktrdr.events import FailureCause, FileDigest, ModelManifest, TrainingProgress
from ktrdr.training.execution_mode_selector import Mode, Place

# A request holds a whole strategy file, which nobody lists.
_UNLISTED = ("request", "checkpoint", "preparation")
_RECORDED = tuple(column for column in operations.c if column.name not in _UNLISTED)
_FILES = TypeAdapter(dict[str, FileDigest])


def select_operations() -> Select[Any]:
    """Return the query whose rows `operation_record` reads."""
    return select(
        *_RECORDED,
        operation_progress.c.event.label("progress_event"),
        models.c.path.label("model_path"),
        models.c.manifest.label("model_manifest"),
    ).select_from(
        operations.outerjoin(
            operation_progress, operation_progress.c.operation_id == operations.c.id
        ).outerjoin(models, models.c.operation_id == operations.c.id)
    )


def operation_record(row: Row[Any]) -> OperationRecord:
    """Return one operation."""
    progress = row.progress_event
    return OperationRecord(
        operation_id=row.id,
        state=State(row.state),
        revision=row.revision,
        attempt=row.attempt,
        max_attempts=row.max_attempts,
        strategy=row.strategy,
        symbol=row.symbol,
        timeframe=row.timeframe,
        seed=row.seed,
        created_at=row.created_at,
        updated_at=row.updated_at,
        started_at=row.started_at,
        finished_at=row.finished_at,
        owner=row.owner,
        claim_id=row.claim_id,
        agent_id=row.agent_id,
        device=row.device,
        lease_s=row.lease_s,
        mode=Mode(row.mode) if row.mode else None,
        place=Place(row.place) if row.place else None,
        place_reason=row.place_reason,
        cause=FailureCause(row.cause) if row.cause else None,
        message=row.cancel_reason if row.message is None else row.message,
        progress=TrainingProgress.model_validate_json(progress) if progress else None,
        model=row.model_path,
        retry_of=row.retry_of,
        metrics=json.loads(row.model_manifest)["metrics"] if row.model_manifest else {},
    )


def select_history(operation_id: str) -> Select[Any]:
    """Return the query whose rows `history_entry` reads, oldest first."""
    return (
        select(operation_history)
        .where(operation_history.c.operation_id == operation_id)
        .order_by(operation_history.c.id)
    )


def history_entry(row: Row[Any]) -> HistoryEntry:
    """Return one entry of an operation's history."""
    return HistoryEntry(
        at=row.at,
        kind=HistoryKind(row.kind),
        attempt=row.attempt,
        agent_id=row.agent_id,
        message=row.message,
    )


def model_record(row: Row[Any]) -> ModelRecord:
    """Return one model version."""
    return ModelRecord(
        name=row.path,
        operation_id=row.operation_id,
        attempt=row.attempt,
        strategy=row.strategy,
        symbol=row.symbol,
        timeframe=row.timeframe,
        version=row.version,
        bundle_sha256=row.bundle_sha256,
        files=_FILES.validate_json(row.files),
        manifest=ModelManifest.model_validate_json(row.manifest),
        created_at=row.created_at,
    )


def files_json(files: Mapping[str, FileDigest]) -> str:
    """Return the column ``files`` of a model."""
    return _FILES.dump_json(dict(files)).decode()
