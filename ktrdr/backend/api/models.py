"""Trained models: listed, shown, downloaded file by file."""

from datetime import datetime
from http import HTTPStatus
from pathlib import Path as FilePath
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Path, Query
from fastapi.responses import FileResponse
from pydantic import BaseModel, Field, JsonValue

from ktrdr.backend.api.access import Access
from ktrdr.backend.api.operations import NAME
from ktrdr.backend.api.problems import Problem
from ktrdr.backend.api.service import Service
from ktrdr.backend.records import ModelRecord
from ktrdr.events import FileDigest
from ktrdr.models.directory import SUMS_FILE, ModelDirectory

REPORT = "report.html"
# A report has scripts, and agents may be anybody's: it must not act in the reader's name here.
_UNTRUSTED = {
    "Content-Security-Policy": "sandbox allow-scripts allow-downloads",
    "X-Content-Type-Options": "nosniff",
}

Strategy = Annotated[str, Path(pattern=NAME, examples=["eurusd_momentum"])]
Version = Annotated[
    str,
    Path(pattern=NAME, description="As in `EURUSD_1h_v3`, or `EURUSD_1h_latest`.", examples=["EURUSD_1h_v1"]),
]


class ModelSummary(BaseModel):
    """One version of a model in a list."""

    name: str = Field(description="`{strategy}/{symbol}_{timeframe}_v{N}`.")
    strategy: str
    symbol: str
    timeframe: str
    version: int
    operation_id: str
    created_at: datetime
    metrics: dict[str, float] = Field(description="Test metrics and baselines.")
    bundle_sha256: str


class ModelDetail(ModelSummary):
    """One version of a model."""

    files: dict[str, FileDigest]
    manifest: dict[str, JsonValue]
    report: str | None = Field(description="Path of its report, if it has one.")


class ModelPage(BaseModel):
    """Some models."""

    success: Literal[True] = True
    models: list[ModelSummary]
    next_cursor: str | None = Field(description="Of the next page; null if this is the last.")


class ModelAnswer(BaseModel):
    """One model."""

    success: Literal[True] = True
    model: ModelDetail


def models_router(service: Service, access: Access) -> APIRouter:
    """Return the routes."""
    router = APIRouter(prefix="/api/v1/models", tags=["models"], dependencies=[Depends(access.reading())])
    catalog, directory = service.store.models, ModelDirectory(service.settings.models_dir)

    @router.get("", summary="List models, newest first")
    def list_models(
        strategy: Annotated[str | None, Query(pattern=NAME)] = None,
        limit: Annotated[int, Query(ge=1, le=1000)] = 50,
        cursor: Annotated[
            str | None,
            Query(max_length=300, pattern=r"^[A-Za-z0-9_.@+/-]+$", description="`next_cursor` of a page."),
        ] = None,
    ) -> ModelPage:
        found = catalog.list_models(strategy=strategy, limit=limit + 1, before=cursor)
        page = found[:limit]
        return ModelPage(
            models=[ModelSummary(**_summary(record)) for record in page],
            next_cursor=page[-1].name if len(found) > limit else None,
        )

    @router.get("/{strategy}/{version}", summary="Show a model")
    def show(strategy: Strategy, version: Version) -> ModelAnswer:
        record = catalog.find(f"{strategy}/{version}")
        report = f"/api/v1/models/{record.name}/report" if REPORT in record.files else None
        manifest = record.manifest.model_dump(mode="json", exclude={"files"})
        return ModelAnswer(
            model=ModelDetail(**_summary(record), files=dict(record.files), manifest=manifest, report=report)
        )

    @router.get(
        "/{strategy}/{version}/report",
        summary="The report of a model, as a page",
        response_class=FileResponse,
    )
    def report(strategy: Strategy, version: Version) -> FileResponse:
        path = _file(directory, catalog.find(f"{strategy}/{version}"), REPORT)
        return FileResponse(path, media_type="text/html", headers=_UNTRUSTED)

    @router.get(
        "/{strategy}/{version}/files/{file}",
        summary="Download a file of a model",
        response_class=FileResponse,
    )
    def download(
        strategy: Strategy, version: Version, file: Annotated[str, Path(pattern=NAME)]
    ) -> FileResponse:
        record = catalog.find(f"{strategy}/{version}")
        path = _file(directory, record, file)
        digest = record.files.get(file)
        etag = {"ETag": f'"{digest.sha256}"'} if digest is not None else {}
        return FileResponse(
            path, media_type="application/octet-stream", filename=file, headers={**_UNTRUSTED, **etag}
        )

    return router


def _summary(record: ModelRecord) -> dict[str, Any]:
    return {
        "name": record.name,
        "strategy": record.strategy,
        "symbol": record.symbol,
        "timeframe": record.timeframe,
        "version": record.version,
        "operation_id": record.operation_id,
        "created_at": record.created_at,
        "metrics": dict(record.manifest.metrics),
        "bundle_sha256": record.bundle_sha256,
    }


def _file(directory: ModelDirectory, record: ModelRecord, name: str) -> FilePath:
    """Return the path of a file that a version has; nothing else is ever read."""
    if name not in (*record.files, SUMS_FILE):
        raise Problem(
            HTTPStatus.NOT_FOUND,
            "no-such-file",
            f"Model {record.name} has no file '{name}'.",
            fix=f"It has: {', '.join(sorted((*record.files, SUMS_FILE)))}.",
        )
    path = directory.path(record.name) / name
    if path.is_symlink() or not path.is_file():
        raise Problem(
            HTTPStatus.GONE,
            "model-damaged",
            f"The file {name} of model {record.name} is missing.",
            fix=f"See what differs, where the backend runs: ktrdr models verify {record.name}",
        )
    return path
