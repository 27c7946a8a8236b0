"""Live display of one training: numbered steps, epochs, losses, time left."""

from time import monotonic
from types import TracebackType
from typing import Protocol, Self

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from ktrdr.cli.output import duration, err
from ktrdr.events import TrainingProgress
from ktrdr.training.progress import Stage

_PLAIN_EPOCH_LINE_EVERY_S = 2.0


class Display(Protocol):
    """Where the progress of one operation is shown."""

    def progress(self, progress: TrainingProgress) -> None:
        """Show where the attempt is."""

    def notice(self, message: str, *, style: str = "") -> None:
        """Show something that happened, above the progress."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...


def training_display(*, quiet: bool = False, console: Console = err) -> Display:
    """Return the display that fits: live on a terminal, lines elsewhere, nothing when quiet."""
    if quiet:
        return SilentDisplay()
    return LiveDisplay(console) if console.is_terminal else LineDisplay(console)


class SilentDisplay:
    """Shows nothing."""

    def progress(self, progress: TrainingProgress) -> None:
        """Ignore it."""

    def notice(self, message: str, *, style: str = "") -> None:
        """Ignore it."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return


class LineDisplay:
    """One line per step, and one per some epochs: for log files and pipes."""

    def __init__(self, console: Console = err) -> None:
        self._console = console
        self._steps = _Steps()
        self._next_epoch_line = 0.0

    def progress(self, progress: TrainingProgress) -> None:
        """Print the steps that were reached, and now and then the epoch."""
        for step in self._steps.reached(progress):
            self._console.print(step.step, markup=False)
        if progress.epoch and (monotonic() >= self._next_epoch_line or progress.epoch == progress.epochs):
            self._next_epoch_line = monotonic() + _PLAIN_EPOCH_LINE_EVERY_S
            if progress.stage_number == Stage.TRAIN.number:
                self._console.print(f"      {_epoch_line(progress)}", markup=False, soft_wrap=True)

    def notice(self, message: str, *, style: str = "") -> None:
        """Print the message."""
        self._console.print(Text(message), soft_wrap=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return


class LiveDisplay:
    """Finished steps above, the running one below with a bar."""

    def __init__(self, console: Console = err) -> None:
        self._console = console
        self._steps = _Steps()
        self._running: Stage | None = None
        self._started = monotonic()
        self._live = Live(console=console, refresh_per_second=10, transient=True, get_renderable=self._render)
        self._latest: TrainingProgress | None = None
        self._last_epoch: TrainingProgress | None = None

    def progress(self, progress: TrainingProgress) -> None:
        """Move finished steps up and redraw."""
        if progress.epoch:
            self._last_epoch = progress
        for step in self._steps.reached(progress):
            if self._running is not None:
                self._print_done(self._running)
            self._running = step
        self._latest = progress

    def notice(self, message: str, *, style: str = "") -> None:
        """Print the message above the live part."""
        self._console.print(Text(message, style=style), soft_wrap=True)

    def _print_done(self, stage: Stage) -> None:
        line = Text("✓ ", style="green") + Text(stage.step, style="default")
        if stage is Stage.TRAIN and self._last_epoch is not None:
            line.append(f"  {_epoch_line(self._last_epoch, with_eta=False)}", style="dim")
        self._console.print(line, soft_wrap=True)

    def _render(self) -> Group:
        if self._running is None or self._latest is None:
            return Group(Text(f"… starting ({duration(monotonic() - self._started)})", style="dim"))
        line = Table.grid(padding=(0, 1))
        line.add_row(
            Text("▸", style="cyan"),
            Text(self._running.step),
            ProgressBar(total=1.0, completed=self._latest.fraction, width=24),
            Text(f"{self._latest.fraction:4.0%}"),
        )
        if self._latest.epochs and self._running is Stage.TRAIN:
            epochs = Text(f"  {_epoch_line(self._latest)}", style="dim", no_wrap=True, overflow="ellipsis")
            return Group(line, epochs)
        return Group(line)

    def __enter__(self) -> Self:
        self._live.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._live.__exit__(kind, error, traceback)
        if (
            kind is None
            and self._running is not None
            and self._latest is not None
            and self._latest.fraction >= 1
        ):
            self._print_done(self._running)


class _Steps:
    """Which steps are new, also when quick ones were passed between two events; anew for each attempt."""

    def __init__(self) -> None:
        self._attempt = 0
        self._number = 0

    def reached(self, progress: TrainingProgress) -> list[Stage]:
        if progress.attempt != self._attempt:
            self._attempt, self._number = progress.attempt, 0
        new = [stage for stage in Stage if self._number < stage.number <= progress.stage_number]
        self._number = max(self._number, progress.stage_number)
        return new


def _epoch_line(progress: TrainingProgress, *, with_eta: bool = True) -> str:
    metrics = progress.metrics
    parts = [f"epoch {progress.epoch}/{progress.epochs}"]
    if (loss := metrics.get("train_loss")) is not None:
        parts.append(f"loss {loss:.4f}" + _validation(metrics.get("val_loss"), ".4f"))
    if (accuracy := metrics.get("train_accuracy")) is not None:
        parts.append(f"accuracy {accuracy:.1%}" + _validation(metrics.get("val_accuracy"), ".1%"))
    if with_eta and progress.eta_s is not None:
        parts.append(f"{duration(progress.eta_s)} left")
    return " · ".join(parts)


def _validation(value: float | None, form: str) -> str:
    return "" if value is None else f" (val {value:{form}})"
