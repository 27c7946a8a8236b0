"""What agent and runner tell each other over their pipe."""

from pathlib import Path
from typing import ClassVar

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from host_agent.endings import Ending
from ktrdr.training.job import TrainingJob
from ktrdr.training.progress import Progress, Stage


class Frame(BaseModel):
    """One thing said; frozen, and unknown fields are an error, for both ends are of one version."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: ClassVar[str]


class Start(Frame):
    """Agent to runner: do this job."""

    kind: ClassVar[str] = "start"

    run_id: str
    job: TrainingJob
    bundle: Path
    """Where to write the packed bundle."""
    max_bundle_bytes: int


class Cancel(Frame):
    """Agent to runner: stop that run."""

    kind: ClassVar[str] = "cancel"

    run_id: str


class Ready(Frame):
    """Runner to agent: everything is imported; this is what it will train on."""

    kind: ClassVar[str] = "ready"

    device: str
    """A torch device: ``cpu``, ``cuda``, ``mps``."""
    device_name: str
    memory_bytes: int
    """Of the device; for ``cpu`` and ``mps`` of the machine."""
    import_seconds: float


class Progressed(Frame):
    """Runner to agent: the newest progress of a run."""

    kind: ClassVar[str] = "progressed"

    run_id: str
    stage: str
    fraction: float
    epoch: int
    epochs: int
    batch: int
    batches: int
    metrics: dict[str, float]
    earlier: tuple[tuple[int, dict[str, float]], ...]
    eta_s: float | None

    @classmethod
    def of(cls, run_id: str, progress: Progress) -> "Progressed":
        """Return the frame for what the executor reported."""
        return cls(
            run_id=run_id,
            stage=progress.stage.name,
            fraction=progress.fraction,
            epoch=progress.epoch,
            epochs=progress.epochs,
            batch=progress.batch,
            batches=progress.batches,
            metrics=dict(progress.metrics),
            earlier=tuple((epoch, dict(metrics)) for epoch, metrics in progress.earlier),
            eta_s=progress.eta_s,
        )

    def progress(self) -> Progress:
        """Return what the executor reported."""
        return Progress(
            stage=Stage[self.stage],
            fraction=self.fraction,
            epoch=self.epoch,
            epochs=self.epochs,
            batch=self.batch,
            batches=self.batches,
            metrics=self.metrics,
            earlier=self.earlier,
            eta_s=self.eta_s,
        )


class LogLine(Frame):
    """Runner to agent: a line of the log, to be shown where the agent's own lines go."""

    kind: ClassVar[str] = "log"

    level: str
    event: str
    fields: dict[str, JsonValue] = Field(default_factory=dict)


class Ended(Frame):
    """Runner to agent: the run is over, and the runner is free."""

    kind: ClassVar[str] = "ended"

    run_id: str
    ending: Ending


FRAMES: dict[str, type[Frame]] = {
    frame.kind: frame for frame in (Start, Cancel, Ready, Progressed, LogLine, Ended)
}
