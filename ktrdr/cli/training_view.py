"""What `ktrdr train` shows: preparation, progress, what happens to the attempts, the outcome."""

from collections.abc import Mapping
from datetime import UTC, datetime
from types import TracebackType
from typing import TYPE_CHECKING, Self

from rich.text import Text

from ktrdr.app.embedded import TrainingListener
from ktrdr.backend.records import OperationRecord, Submission
from ktrdr.backend.states import State
from ktrdr.cli.display import training_display
from ktrdr.cli.output import duration, err, facts, out, print_warning, size, table
from ktrdr.training.execution_mode_selector import Mode, Place

if TYPE_CHECKING:
    from ktrdr.backend.records import ModelRecord
    from ktrdr.backend.wishes import Preparation
    from ktrdr.client.port import Installation, ModelPlace

_BASELINES = {"majority_class": "always the majority class", "last_return_sign": "sign of the last return"}
_HEADLINE = ("accuracy", "balanced_accuracy", "macro_f1", "log_loss", "sign_accuracy", "mae", "mse", "r2")
_PERCENT = frozenset({"accuracy", "balanced_accuracy", "sign_accuracy"})


class TrainingView:
    """Shows one training; a context manager around its run."""

    def __init__(self, *, quiet: bool = False, here: str = "here") -> None:
        self._here = here
        self._quiet = quiet
        self._display = training_display(quiet=quiet)
        self._last: OperationRecord | None = None
        self._own: str | None = None
        self.listener = TrainingListener(self._prepared, self._submitted, self._changed)

    def interrupted(self) -> None:
        """Say that the interrupt was noticed, and what it ends."""
        is_over = self._last is not None and self._last.operation_id != self._own
        self._display.notice("Leaving that for later …" if is_over else "Cancelling …", style="yellow")

    def waiting(self, why: str) -> None:
        """Say what a training waits for that nobody runs yet."""
        self._display.notice(f"Waiting: {why}", style="yellow")

    def watching(self, record: OperationRecord) -> None:
        """Say which operation is followed, when it is another process that runs it."""
        self._own = record.operation_id
        self._display.notice(
            f"{record.operation_id} · {record.strategy} · seed {record.seed} · {record.state}"
        )

    def _prepared(self, prepared: "Preparation") -> None:
        if self._quiet:
            return
        for warning in prepared.warnings:
            print_warning(warning.describe(prepared.source))
        for line in prepared.bars:
            self._display.notice(f"  {line}", style="dim")

    def _submitted(self, submission: Submission) -> None:
        operation = submission.operation
        self._own = operation.operation_id
        verb = "Resuming the interrupted" if submission.resumed else "Operation"
        self._display.notice(f"{verb} {operation.operation_id} · seed {operation.seed}")
        if operation.place_reason is None or operation.mode is Mode.LOCAL:
            return
        where = self._here if operation.place is Place.LOCAL else "on a host"
        fell_back = operation.mode is Mode.HOST and operation.place is Place.LOCAL
        self._display.notice(
            f"Trains {where}: {operation.place_reason}", style="yellow" if fell_back else "dim"
        )

    def _changed(self, record: OperationRecord) -> None:
        last, self._last = self._last, record
        if last is None or last.operation_id != record.operation_id:
            if record.operation_id != self._own:
                self._display.notice(
                    f"Finishing the interrupted {record.operation_id} ({record.strategy}) too; "
                    "Ctrl-C leaves it for later"
                )
            last = None
        if record.progress is not None and record.state in (State.RUNNING, State.COMPLETED):
            self._display.progress(record.progress)
        if last is not None and record.attempt > last.attempt:
            why = f": {record.message.splitlines()[0].rstrip('.')}" if record.message else ""
            now = f"attempt {record.attempt} of {record.max_attempts}"
            self._display.notice(f"Attempt {last.attempt} did not finish{why}; {now}", style="yellow")
        elif last is not None and record.message not in (None, last.message) and not record.state.terminal:
            self._display.notice(f"Waiting: {record.message}", style="yellow")

    def __enter__(self) -> Self:
        self._display.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._display.__exit__(kind, error, traceback)


def print_outcome(record: OperationRecord, installation: "Installation") -> None:
    """Print how it ended: the model and its metrics, or why there is none."""
    if record.state is State.COMPLETED:
        model = _model_of(record, installation)
        print_model(model, installation.place_of(model.name), title=f"Trained {model.name}")
        if record.started_at is not None and record.finished_at is not None:
            took = (record.finished_at - record.started_at).total_seconds()
            out.print(f"Took {duration(took)}.", style="dim")
        return
    if record.state is State.CANCELLED:
        err.print(Text(f"{record.operation_id} was cancelled; no model was made.", style="yellow"))
        return
    err.print(Text("error: ", style="bold red") + Text(f"{record.operation_id} failed ({record.cause})"))
    err.print(Text(f"  {record.message or ''}"), soft_wrap=True)
    err.print(Text(f"  The whole story: ktrdr ops show {record.operation_id}", style="dim"))


def print_model(model: "ModelRecord", place: "ModelPlace", *, title: str) -> None:
    """Print a model version: its test metrics against the baselines, and where its files are."""
    manifest = model.manifest
    out.print()
    out.print(Text(title, style="bold green"))
    metrics = table("test part", ">this model", *(f">{name}" for name in _baselines(manifest.metrics)))
    for name in _HEADLINE:
        if name in manifest.metrics:
            row = [_shown(name, manifest.metrics[name])]
            row += [
                _shown(name, manifest.metrics.get(f"baseline_{baseline}_{name}"))
                for baseline in _BASELINES
                if _has_baseline(manifest.metrics, baseline)
            ]
            metrics.add_row(name.replace("_", " "), *row)
    out.print(metrics)
    seconds = sum(timing.seconds for timing in manifest.timings)
    out.print()
    out.print(
        facts(
            [
                (
                    "rows",
                    f"{manifest.train_rows:,} train · {manifest.validation_rows:,} validation · "
                    f"{manifest.test_rows:,} test",
                ),
                ("epochs", f"{manifest.epochs_trained} trained, the best was {manifest.best_epoch}"),
                ("features", f"{len(manifest.features)}; {manifest.parameters:,} parameters"),
                ("seed", manifest.seed),
                (
                    "runner",
                    f"{duration(seconds)} on {manifest.device}, "
                    f"at most {size(manifest.peak_memory_bytes)} of memory",
                ),
                ("weights", f"sha256 {manifest.weights_sha256}"),
                ("files", f"{place.files}/"),
                ("report", place.report),
            ]
        ),
        soft_wrap=True,
    )


def model_as_json(model: "ModelRecord", place: "ModelPlace") -> dict[str, object]:
    """Return a model version for ``--json``."""
    return {
        "name": model.name,
        "strategy": model.strategy,
        "symbol": model.symbol,
        "timeframe": model.timeframe,
        "version": model.version,
        "operation_id": model.operation_id,
        "created_at": model.created_at.astimezone(UTC).isoformat(),
        "path": place.path,
        "report": place.report_path,
        "bundle_sha256": model.bundle_sha256,
        "files": {name: digest.model_dump() for name, digest in model.files.items()},
        "manifest": model.manifest.model_dump(mode="json", exclude={"files"}),
    }


def operation_as_json(record: OperationRecord) -> dict[str, object]:
    """Return an operation for ``--json``."""

    def time(moment: datetime | None) -> str | None:
        return moment.astimezone(UTC).isoformat() if moment is not None else None

    return {
        "operation_id": record.operation_id,
        "state": record.state.value,
        **decision_as_json(record),
        "attempt": record.attempt,
        "max_attempts": record.max_attempts,
        "strategy": record.strategy,
        "symbol": record.symbol,
        "timeframe": record.timeframe,
        "seed": record.seed,
        "retry_of": record.retry_of,
        "created_at": time(record.created_at),
        "started_at": time(record.started_at),
        "finished_at": time(record.finished_at),
        "agent_id": record.agent_id,
        "device": record.device,
        "cause": record.cause.value if record.cause is not None else None,
        "message": record.message,
        "progress": record.progress.model_dump(mode="json") if record.progress is not None else None,
        "model": record.model,
        "metrics": dict(record.metrics),
    }


def decision_as_json(record: OperationRecord) -> dict[str, object]:
    """Return where an operation runs and why, for ``--json``; nulls if nothing was decided."""
    return {"mode": record.mode, "where": record.place, "reason": record.place_reason}


def outcome_as_json(record: OperationRecord, installation: "Installation") -> dict[str, object]:
    """Return how a training ended, for ``--json``: the operation, and the model if there is one."""
    outcome = operation_as_json(record)
    model = _model_of(record, installation) if record.state is State.COMPLETED else None
    place = installation.place_of(model.name) if model is not None else None
    return {**outcome, "model": model_as_json(model, place) if model is not None and place else None}


def _model_of(record: OperationRecord, installation: "Installation") -> "ModelRecord":
    if record.model is None:
        raise AssertionError(f"{record.operation_id} is completed and has no model")
    return installation.model(record.model)


def _baselines(metrics: Mapping[str, float]) -> list[str]:
    return [title for name, title in _BASELINES.items() if _has_baseline(metrics, name)]


def _has_baseline(metrics: Mapping[str, float], baseline: str) -> bool:
    return any(name.startswith(f"baseline_{baseline}_") for name in metrics)


def _shown(name: str, value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:.1%}" if name in _PERCENT else f"{value:.4g}"
