"""What an operation has made: results, and the metrics of its epochs."""

from http import HTTPStatus
from pathlib import Path
from typing import Any, Literal

from fastapi import APIRouter, Depends
from pydantic import BaseModel, Field, JsonValue, ValidationError

from ktrdr.backend.api.access import Access
from ktrdr.backend.api.operations import OperationId
from ktrdr.backend.api.problems import Problem
from ktrdr.backend.api.service import Service
from ktrdr.backend.api.views import STATUS, Status
from ktrdr.backend.curves import EpochPoint, read_curve
from ktrdr.backend.records import ModelRecord, OperationRecord
from ktrdr.models.bundle import METADATA_FILE
from ktrdr.models.directory import ModelDirectory
from ktrdr.models.metadata import EpochRecord, ModelMetadata


class Performance(BaseModel):
    """How good a model is, and what it is."""

    success: Literal[True] = True
    training_metrics: dict[str, float] = Field(
        description="Of the best epoch, on training and validation part."
    )
    test_metrics: dict[str, float]
    baselines: dict[str, dict[str, float]] = Field(description="The same metrics of who only guesses.")
    model_info: dict[str, JsonValue]


class Results(BaseModel):
    """What a completed operation has made."""

    success: Literal[True] = True
    operation_id: str
    operation_type: Literal["training"] = "training"
    status: Status
    results: Performance


class EpochMetrics(BaseModel):
    """The epochs of a training."""

    epochs: list[dict[str, float | int | None]] = Field(
        description="Every epoch so far, in order; one that was told of while nobody listened may be missing "
        "until the training is completed."
    )
    best_epoch: int | None
    best_val_loss: float | None
    epochs_since_improvement: int | None
    total_epochs_planned: int
    total_epochs_completed: int


class MetricsOfOperation(BaseModel):
    """The epochs of an operation."""

    operation_id: str
    operation_type: Literal["training"] = "training"
    metrics: EpochMetrics


class MetricsAnswer(BaseModel):
    """The epochs of an operation."""

    success: Literal[True] = True
    data: MetricsOfOperation


def results_router(service: Service, access: Access) -> APIRouter:
    """Return the routes."""
    router = APIRouter(prefix="/api/v1", tags=["operations"], dependencies=[Depends(access.reading())])
    store, models_dir = service.store, service.settings.models_dir

    @router.get("/operations/{operation_id}/results", summary="What a completed operation has made")
    def results(operation_id: OperationId) -> Results:
        record = store.get(operation_id)
        return Results(
            operation_id=operation_id, status=STATUS[record.state], results=_performance(service, record)
        )

    @router.get("/trainings/{operation_id}/performance", summary="The same, as former clients read it")
    def performance(operation_id: OperationId) -> Performance:
        return _performance(service, store.get(operation_id))

    @router.get("/operations/{operation_id}/metrics", summary="Metrics by epoch")
    def metrics(operation_id: OperationId) -> MetricsAnswer:
        record = store.get(operation_id)
        model = store.models.of_operation(operation_id)
        found = (
            _of_model(read_metadata(models_dir, model))
            if model is not None
            else _of_curve(record, read_curve(store, operation_id))
        )
        return MetricsAnswer(data=MetricsOfOperation(operation_id=operation_id, metrics=found))

    return router


def read_metadata(models_dir: Path, model: ModelRecord) -> ModelMetadata:
    """Return the metadata of a model, from its directory.

    Raises:
        Problem: it is not there any more, or not what was persisted.
    """
    path = ModelDirectory(models_dir).path(model.name) / METADATA_FILE
    try:
        return ModelMetadata.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise Problem(
            HTTPStatus.GONE,
            "model-damaged",
            f"The files of model {model.name} are missing or damaged.",
            fix=f"See what differs, where the backend runs: ktrdr models verify {model.name}",
        ) from error


def _performance(service: Service, record: OperationRecord) -> Performance:
    model = service.store.models.of_operation(record.operation_id)
    if model is None:
        raise Problem(
            HTTPStatus.CONFLICT,
            "no-results",
            f"Operation {record.operation_id} is {record.state} and has made no model.",
            fix="Follow it until its end: GET /api/v1/operations/ID/events"
            if not record.state.terminal
            else "See why: GET /api/v1/operations/ID",
        )
    metadata = read_metadata(service.settings.models_dir, model)
    info: dict[str, Any] = {
        "model_name": model.name,
        "model_path": str(ModelDirectory(service.settings.models_dir).path(model.name)),
        "model_type": metadata.model_type,
        "output_type": metadata.output_type,
        "parameters_count": metadata.parameters,
        "feature_names": list(metadata.resolved_features),
        "epochs_trained": len(metadata.history),
        "best_epoch": metadata.best_epoch,
        "weights_sha256": metadata.weights_sha256,
        "seed": metadata.seed,
        "device": metadata.device,
    }
    return Performance(
        training_metrics=metadata.training_metrics,
        test_metrics=metadata.test_metrics,
        baselines=metadata.baselines,
        model_info=info,
    )


def _of_model(metadata: ModelMetadata) -> EpochMetrics:
    history = metadata.history
    best = next((each for each in history if each.epoch == metadata.best_epoch), None)
    return EpochMetrics(
        epochs=[_epoch(each) for each in history],
        best_epoch=metadata.best_epoch,
        best_val_loss=best.val_loss if best is not None else None,
        epochs_since_improvement=len(history) - metadata.best_epoch,
        total_epochs_planned=_planned(metadata),
        total_epochs_completed=len(history),
    )


def _epoch(record: EpochRecord) -> dict[str, float | int | None]:
    return record.model_dump()


def _planned(metadata: ModelMetadata) -> int:
    training = metadata.effective_strategy.get("training")
    epochs = training.get("epochs") if isinstance(training, dict) else None
    return epochs if isinstance(epochs, int) else len(metadata.history)


def _of_curve(record: OperationRecord, curve: list[EpochPoint]) -> EpochMetrics:
    """Return what is known before there is a model, or if there is none."""
    progress = record.progress
    losses = {point.epoch: point.metrics["val_loss"] for point in curve if "val_loss" in point.metrics}
    best = min(losses, key=lambda epoch: (losses[epoch], epoch), default=None)
    newest = curve[-1].epoch if curve else 0
    return EpochMetrics(
        epochs=[{"epoch": point.epoch, **point.metrics} for point in curve],
        best_epoch=best,
        best_val_loss=losses[best] if best is not None else None,
        epochs_since_improvement=newest - best if best is not None else None,
        total_epochs_planned=progress.epochs if progress is not None else 0,
        total_epochs_completed=newest,
    )
