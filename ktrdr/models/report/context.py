"""What a report says that is not in the model's files, because it differs between equal requests."""

from dataclasses import dataclass
from datetime import datetime

from ktrdr.events.references import StageTiming


@dataclass(frozen=True, slots=True)
class ReportContext:
    """The operation that made the model, and how it went."""

    model_name: str
    """As in ``{strategy}/{symbol}_{timeframe}_v{N}``."""
    model_version: int
    operation_id: str
    created_at: datetime
    """When the model was persisted; aware."""
    timings: tuple[StageTiming, ...] = ()
    peak_memory_bytes: int = 0
    """Highest resident memory of the runner; 0 where it is not known."""
    device: str = ""
    """Of the run; the metadata's where it is empty."""
    agent: str = ""
    attempt: int = 1
