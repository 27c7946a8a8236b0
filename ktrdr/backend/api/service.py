"""What the routes work with: the backend of this process, and what the application wires to it."""

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Protocol

from ktrdr.backend.audit import Witness
from ktrdr.backend.records import OperationRecord
from ktrdr.backend.refuse import Clean
from ktrdr.backend.store import OperationStore
from ktrdr.backend.wishes import Accepted, DefaultMode, RetryWish, TrainingWish
from ktrdr.bus.dead_letter_office import DeadLetterOffice
from ktrdr.settings import Settings
from ktrdr.training.execution_mode_selector import Mode


class Operations(Protocol):
    """What a backend does with the operations that there are."""

    @property
    def held_up_by(self) -> str | None:
        """What is in the way of results, for so long that they are left where they are; None: nothing."""

    async def cancel(
        self, operation_id: str, reason: str, *, witness: Witness | None = None
    ) -> OperationRecord:
        """Have an operation stopped; one that has ended stays as it is."""

    def watch(self, operation_id: str) -> AsyncGenerator[OperationRecord, None]:
        """Yield an operation as it is, then each time it changes or gets on; ends after its end."""


class Trainings(Protocol):
    """What accepts trainings, and decides where they run."""

    async def submit(
        self,
        wish: TrainingWish,
        *,
        mode: Mode | None,
        idempotency_key: str | None = None,
        witness: Witness | None = None,
    ) -> Accepted:
        """Accept a training; when this returns, nothing loses it any more."""

    async def retry(
        self,
        operation_id: str,
        wish: RetryWish,
        *,
        idempotency_key: str | None = None,
        witness: Witness | None = None,
    ) -> Accepted:
        """Accept what an operation asked for that failed or was cancelled, once more."""

    async def default_mode(self) -> DefaultMode:
        """Return the mode of trainings for which none is named."""

    async def set_default_mode(self, mode: Mode, *, witness: Witness | None = None) -> None:
        """Change it, for every process that shares the database."""


@dataclass(frozen=True, slots=True)
class Service:
    """A backend that is served."""

    settings: Settings
    store: OperationStore
    operations: Operations
    trainings: Trainings
    dead_letters: DeadLetterOffice
    clean: Clean
