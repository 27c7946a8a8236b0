"""`train` and `load_model` for Python programs and notebooks."""

import asyncio
import threading
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import JsonValue

from ktrdr.app.embedded import TrainingListener, train_embedded
from ktrdr.backend.records import OperationRecord
from ktrdr.backend.states import State
from ktrdr.backend.wishes import TrainingWish
from ktrdr.errors import OperationCancelledError, OperationFailedError
from ktrdr.events import TrainingProgress
from ktrdr.logs import configure_logging_of_guest
from ktrdr.settings import Settings, load_settings

if TYPE_CHECKING:
    from ktrdr.market.time_range import Moment
    from ktrdr.models.loaded import LoadedModel


@dataclass(frozen=True, slots=True)
class ModelVersion:
    """A model that was trained and persisted."""

    name: str
    """``{strategy}/{symbol}_{timeframe}_v{N}``."""
    path: Path
    """Its directory."""
    operation_id: str
    seed: int
    metrics: Mapping[str, float]
    """Test metrics, and those of the baselines as ``baseline_<name>_<metric>``."""

    @property
    def report(self) -> Path:
        """The report, an HTML file."""
        return self.path / "report.html"

    def load(self) -> "LoadedModel":
        """Return the model, ready to predict; see `load_model`."""
        return load_model(self.path)


def train(
    strategy: str | Path,
    *,
    data: str | Path | None = None,
    start: "Moment" = None,
    end: "Moment" = None,
    overrides: Mapping[str, JsonValue] | None = None,
    seed: int | None = None,
    home: str | Path | None = None,
    models: str | Path | None = None,
    on_progress: Callable[[TrainingProgress], None] | None = None,
) -> ModelVersion:
    """Train a strategy, through the same path as every other training, and wait for the model.

    Works in scripts and in notebooks. An interrupt (Ctrl-C) cancels the training. Warnings go to standard
    error; ``KTRDR_LOG_LEVEL=info`` shows the steps, and ``ktrdr ops logs`` has them in any case.

    Args:
        strategy: a YAML file, or a name in the strategies directory.
        data: directory of bars; default: ``KTRDR_DATA_DIR``, else ``data``.
        start: first bar: a date, a time (UTC if it has no zone), or either as ISO 8601 text.
        end: last bar, likewise; a date includes its day.
        overrides: dotted path → value, as in ``{"training.epochs": 5}``.
        seed: the same seed gives the same weights; None: a random one, which is recorded.
        home: state directory; default: ``KTRDR_HOME``, else ``.ktrdr``.
        models: where model versions go; default: ``KTRDR_MODELS_DIR``, else ``models``.
        on_progress: called with each progress event, in another thread.

    Raises:
        StrategyError: the strategy is wrong; lists every problem with its line.
        DataError: the bars are missing or wrong.
        OperationFailedError: the training failed; the message says why.
        OperationCancelledError: the training was cancelled, from elsewhere.
    """
    settings = load_settings(data_dir=data, home=home, models_dir=models)
    # The program that calls this decides what it shows; it has `on_progress` for that.
    configure_logging_of_guest(
        settings.log_level if "log_level" in settings.model_fields_set else "warning", settings.log_format
    )
    wish = TrainingWish(strategy, start=start, end=end, overrides=dict(overrides or {}), seed=seed)

    def report(record: OperationRecord) -> None:
        if on_progress is not None and record.progress is not None:
            on_progress(record.progress)

    record = _run_in_thread(
        lambda stop: train_embedded(wish, settings, stop=stop, listener=TrainingListener(on_change=report))
    )
    return version_of(record, settings)


def version_of(record: OperationRecord, settings: Settings) -> ModelVersion:
    """Return the model of an operation that has ended.

    Raises:
        OperationFailedError: it failed; the message says why.
        OperationCancelledError: it was cancelled.
    """
    if record.state is State.CANCELLED:
        raise OperationCancelledError(
            f"{record.operation_id} was cancelled: {record.message or 'on request'}."
        )
    if record.model is None:
        raise OperationFailedError(f"{record.operation_id} failed: {record.message or record.cause}")
    return ModelVersion(
        name=record.model,
        path=settings.models_dir / record.model,
        operation_id=record.operation_id,
        seed=record.seed,
        metrics=record.metrics,
    )


def load_model(path: str | Path) -> "LoadedModel":
    """Load a model version, or what a ``…_latest`` link points to; runs no code from it.

    Raises:
        ModelNotFoundError: there is no model.
        ModelCorruptError: its files are not what was persisted.
    """
    from ktrdr.models.loaded import load_model as load

    return load(path)


def _run_in_thread(
    work: Callable[[asyncio.Event], Coroutine[None, None, OperationRecord]],
) -> OperationRecord:
    # In a thread of its own, because a notebook's thread already runs an event loop. The interrupt arrives
    # here, in the main thread, and becomes a cancellation there.
    outcome: Future[OperationRecord] = Future()
    started: Future[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = Future()

    async def main() -> OperationRecord:
        stop = asyncio.Event()
        started.set_result((asyncio.get_running_loop(), stop))
        return await work(stop)

    def run() -> None:
        try:
            outcome.set_result(asyncio.run(main()))
        except BaseException as error:
            outcome.set_exception(error)

    thread = threading.Thread(target=run, name="ktrdr-train")
    thread.start()
    try:
        return outcome.result()
    except KeyboardInterrupt:
        loop, stop = started.result()
        loop.call_soon_threadsafe(stop.set)
        raise
    finally:
        thread.join()
