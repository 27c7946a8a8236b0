"""From a verified result to a registered model: on disk and in the database together, or not at all."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import structlog

from ktrdr.backend import results
from ktrdr.backend.attempts import RetryPolicy
from ktrdr.backend.catalog import is_registered, lock_versions, next_version
from ktrdr.backend.records import HistoryKind, OperationRecord
from ktrdr.backend.rows import files_json
from ktrdr.backend.statements import INSERT_MODEL
from ktrdr.backend.states import State
from ktrdr.backend.store import OperationStore
from ktrdr.backend.verification import ResultRejectedError, verified_files
from ktrdr.backend.work import Work
from ktrdr.blobs.store import BlobStore
from ktrdr.errors import KtrdrError
from ktrdr.events import ModelReady
from ktrdr.models.directory import ModelDirectory, StagedModel, version_name

if TYPE_CHECKING:
    from ktrdr.models.report.context import ReportContext

_log = structlog.get_logger()

T = TypeVar("T")

RenderReport = Callable[[Mapping[str, bytes], "ReportContext"], bytes | None]
"""Makes the report of a model from its files; None: there is none."""

REPORT_FILE = "report.html"


class _VersionTakenError(Exception):
    """Another process has registered the version that was about to be this one's."""


@dataclass(frozen=True, slots=True)
class VerifiedModel:
    """A result that is what it should be; its files are staged, or to be staged with the report."""

    event: ModelReady
    event_id: str
    operation: OperationRecord
    files: dict[str, bytes]
    staged: StagedModel | None


@dataclass(frozen=True, slots=True)
class _Candidate:
    """A verified model, about to become a version."""

    event: ModelReady
    event_id: str
    operation: OperationRecord
    version: int
    name: str


class ModelPersister:
    """Takes results: the first valid one of an operation becomes its model. Calls block.

    Args:
        store: where models are registered.
        directory: where their files go.
        blobs: where results lie that came by reference.
        owner: on whose bus agents are answered.
        instance: by whose name others know what it stages.
        retries: what follows a result that is rejected.
        limit_bytes: no model may be larger.
        render_report: makes ``report.html``.
    """

    def __init__(
        self,
        store: OperationStore,
        directory: ModelDirectory,
        blobs: BlobStore,
        *,
        owner: str,
        instance: str,
        retries: RetryPolicy,
        limit_bytes: int,
        render_report: RenderReport | None,
    ) -> None:
        self._store = store
        self._directory = directory
        self._blobs = blobs
        self._owner = owner
        self._instance = instance
        self._retries = retries
        self._limit_bytes = limit_bytes
        self._render_report = render_report

    def examine(self, event: ModelReady, event_id: str) -> VerifiedModel | OperationRecord | None:
        """Return what is to be registered, or, if it is not wanted or not valid, the operation as it is then.

        The agent is answered in the latter case, also when the event comes again.

        Raises:
            StorageFullError: the disk of the models or of the database is full; nothing has changed.
            DatabaseUnavailableError: the database does not answer; likewise.
            BlobError: the blob store does not answer; likewise.
            ModelError: the models directory cannot be written; likewise.
        """
        found = self._store.find_request(event.operation_id)
        if found is None or not results.is_wanted(found[0]):
            return self._change(lambda work: results.decline(work, event))
        operation, request = found
        try:
            files = verified_files(
                event,
                request,
                symbol=operation.symbol,
                timeframe=operation.timeframe,
                blobs=self._blobs,
                limit_bytes=self._limit_bytes,
            )
        except ResultRejectedError as error:
            reason = error.message
            return self._change(lambda work: results.reject(work, event, event_id, reason, self._retries))
        staged = None
        if self._render_report is None:
            staged = self._directory.stage(files, owner=self._instance)
        # What is staged need not be in memory too.
        return VerifiedModel(event, event_id, operation, {} if staged is not None else files, staged)

    def register(self, model: VerifiedModel) -> OperationRecord | None:
        """Make it the next version of its name, unless it is not wanted any more, and answer the agent.

        The link to the newest version of the name leads there then.

        Models of one name are best registered one after the other: side by side each would be made the next
        version, and all but the first anew.

        Returns:
            The operation as it is then, if there is one.

        Raises:
            StorageFullError: as `examine`.
            DatabaseUnavailableError: likewise.
            ModelError: likewise.
        """
        operation = model.operation
        parts = (operation.strategy, operation.symbol, operation.timeframe)
        try:
            while True:
                version = self._store.models.next_version(*parts)
                name = version_name(*parts, version)
                candidate = _Candidate(model.event, model.event_id, operation, version, name)
                try:
                    registered = self._persist(candidate, model)
                except _VersionTakenError:
                    continue  # the report has the wrong number in it
                if registered is not None and registered.state is State.COMPLETED:
                    self._point_latest_or_warn(registered)
                return registered
        finally:
            if model.staged is not None:
                self._directory.discard(model.staged)

    def repair(self, is_gone: Callable[[str], bool]) -> None:
        """Put right what a process that was killed has left: staged files, and links to the newest versions.

        Raises:
            StorageFullError: the disk is full.
            ModelError: the models directory cannot be written.
        """
        self._directory.remove_leftovers(is_gone)
        for model in self._store.models.newest_versions():
            if self._directory.path(model.name).is_dir():
                self._point_latest(model.strategy, model.symbol, model.timeframe)

    def _persist(self, candidate: _Candidate, model: VerifiedModel) -> OperationRecord | None:
        if model.staged is not None:
            return self._publish(candidate, model.staged, None)
        report, report_error = self._report(candidate, model.files)
        files = model.files if report is None else {**model.files, REPORT_FILE: report}
        staged = self._directory.stage(files, owner=self._instance)
        try:
            return self._publish(candidate, staged, report_error)
        finally:
            self._directory.discard(staged)

    def _publish(
        self, candidate: _Candidate, staged: StagedModel, report_error: str | None
    ) -> OperationRecord | None:
        try:
            return self._change(lambda work: self._register(work, candidate, staged, report_error))
        except BaseException:
            self._withdraw(candidate, staged)
            raise

    def _register(
        self, work: Work, candidate: _Candidate, staged: StagedModel, report_error: str | None
    ) -> OperationRecord | None:
        event = candidate.event
        operation = work.operation(event.operation_id)
        if operation is None or not results.is_wanted(operation):
            return results.decline(work, event)
        parts = (operation.strategy, operation.symbol, operation.timeframe)
        lock_versions(work.connection, *parts)
        if next_version(work.connection, *parts) != candidate.version:
            raise _VersionTakenError
        row = {
            "operation_id": event.operation_id,
            "attempt": event.attempt,
            "strategy": operation.strategy,
            "symbol": operation.symbol,
            "timeframe": operation.timeframe,
            "version": candidate.version,
            "path": candidate.name,
            "bundle_sha256": event.manifest.bundle_sha256,
            "files": files_json(staged.files),
            "manifest": event.manifest.model_dump_json(),
            "created_at": work.now,
        }
        work.connection.execute(INSERT_MODEL, row)
        if report_error is not None:
            work.note(operation, HistoryKind.REPORT_FAILED, report_error, agent_id=event.agent_id)
        operation = results.complete(
            work, event, candidate.event_id, operation, name=candidate.name, version=candidate.version
        )
        # Last: what can still go wrong is the commit, and a directory without a row is replaced.
        self._directory.publish(staged, candidate.name)
        return operation

    def _withdraw(self, candidate: _Candidate, staged: StagedModel) -> None:
        """Take a version back whose commit failed, if it is certain that it did."""

        operation = candidate.operation

        def action(work: Work) -> None:
            lock_versions(work.connection, operation.strategy, operation.symbol, operation.timeframe)
            if not is_registered(work.connection, candidate.name):
                self._directory.take_back(staged, candidate.name)

        try:
            self._change(action)
        except KtrdrError as error:
            _log.warning("version not taken back, will be replaced", model=candidate.name, error=str(error))

    def _report(self, candidate: _Candidate, files: dict[str, bytes]) -> tuple[bytes | None, str | None]:
        if self._render_report is None:
            return None, None
        # Where a report is made, its library is there; nobody else should have to import it.
        from ktrdr.models.report.context import ReportContext

        event, manifest = candidate.event, candidate.event.manifest
        context = ReportContext(
            model_name=candidate.name,
            model_version=candidate.version,
            operation_id=event.operation_id,
            created_at=self._store.now(),
            timings=manifest.timings,
            peak_memory_bytes=manifest.peak_memory_bytes,
            device=manifest.device,
            agent=event.agent_id,
            attempt=event.attempt,
        )
        try:
            return self._render_report(files, context), None
        except Exception as error:
            # A report that cannot be rendered, for whatever reason, must not cost a model.
            _log.exception("report not rendered", operation_id=event.operation_id)
            return None, f"no report: {type(error).__name__}: {error}"

    def _point_latest_or_warn(self, operation: OperationRecord) -> None:
        try:
            self._point_latest(operation.strategy, operation.symbol, operation.timeframe)
        except KtrdrError as error:
            # The model is registered; the link is put right when a process starts.
            _log.warning("link to the newest version not made", model=operation.model, error=str(error))

    def _point_latest(self, strategy: str, symbol: str, timeframe: str) -> None:
        name, made = (strategy, symbol, timeframe), 0
        # Who links looks again afterwards, so that of two processes the last to look leaves the newest.
        while (newest := self._store.models.next_version(*name) - 1) != made:
            self._directory.point_latest(*name, newest, owner=self._instance)
            made = newest

    def _change(self, action: Callable[[Work], T]) -> T:
        return self._store.change(action, owner=self._owner)
