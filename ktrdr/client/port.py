"""An installation as commands see it, which do not know where it is."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from pydantic import JsonValue

from ktrdr.app.embedded import TrainingListener
from ktrdr.backend.log_reading import LogRecord
from ktrdr.backend.looking import Fleet, ListedOperation, RecordedStory
from ktrdr.backend.records import ModelRecord, OperationRecord
from ktrdr.backend.refuse import Cleaning
from ktrdr.backend.states import State
from ktrdr.backend.tokens import AccessToken, NewToken, Role
from ktrdr.backend.wishes import DefaultMode, RetryWish, TrainingWish
from ktrdr.client.dead_letters import DeadLetters
from ktrdr.client.downloading import Take
from ktrdr.errors import Problem
from ktrdr.events.log_lines import LogLevel
from ktrdr.language.explained import Explanation
from ktrdr.models.directory import Finding
from ktrdr.training.execution_mode_selector import Mode


@dataclass(frozen=True, slots=True)
class Cancellation:
    """What became of a wish to cancel."""

    before: OperationRecord
    after: OperationRecord


@dataclass(frozen=True, slots=True)
class ModelPlace:
    """Where the files of a model version are."""

    files: str
    """A directory, or the address below which they are; ends without a slash."""
    report: str
    """The address of its report."""
    path: str
    """The directory as an absolute path, or the same as ``files``."""
    report_path: str
    """Of the report, likewise."""


@dataclass(frozen=True, slots=True)
class StrategyEntry:
    """One strategy of the strategies directory."""

    name: str
    status: str
    """``trained``, ``untrained`` or ``invalid``."""
    path: str | None = None
    """None if it is not on this machine."""
    versions: int = 0
    problems: int = 0
    symbol: str | None = None
    timeframes: Sequence[str] = ()
    description: str | None = None


@dataclass(frozen=True, slots=True)
class Checked:
    """What is wrong with a strategy, or nothing."""

    source: str
    """What it is called in messages."""
    problems: Sequence[Problem] = ()
    warnings: Sequence[Problem] = ()
    features: Sequence[str] = ()
    columns: int = 0
    """How many numbers its features are."""


@dataclass(frozen=True, slots=True)
class Started:
    """A training that goes on without the command."""

    record: OperationRecord
    warnings: Sequence[str] = ()
    log: Path | None = None
    """Of the process that trains, if it was started for that."""
    more: Mapping[str, JsonValue] = field(default_factory=dict)
    """What else a script is told."""


class Installation(Protocol):
    """Operations, models, strategies and agents of one installation. Calls block unless they are async."""

    here: str
    """What to call where it trains without a host agent: ``here``."""
    is_exposed: bool
    """Whether a token is sent that others can read on the way."""
    dead_letters: DeadLetters
    """What could not be read or handled."""

    def list_operations(
        self, *, state: State | None, strategy: str | None, limit: int, before: str | None
    ) -> list[ListedOperation]:
        """Return operations, newest first; ``before`` is the last id of the page before."""

    def story(self, name: str | None) -> RecordedStory:
        """Return the operation whose id is, begins or ends with that; None: the newest."""

    def cancel(self, name: str, reason: str) -> Cancellation:
        """Have it stopped; one that has ended stays as it is."""

    def retry(self, name: str, wish: RetryWish) -> Started:
        """Ask once more, as it was recorded, for one that has failed or was cancelled; as `start`."""

    def watch(
        self, operation_id: str, on_away: Callable[[str], None]
    ) -> AsyncGenerator[OperationRecord, None]:
        """Yield it as it is, then each time that it changes or gets on; ends after its end.

        ``on_away`` is told why nothing comes for now.
        """

    def log(self, operation_id: str, level: LogLevel) -> list[LogRecord]:
        """Return what is kept of its log, oldest first."""

    def follow_log(
        self, operation_id: str, on_away: Callable[[str], None]
    ) -> AsyncGenerator[list[LogRecord], None]:
        """Yield lines of its log as they come, each once, until it has ended.

        ``on_away`` is told why nothing comes for now.
        """

    def list_models(self, *, strategy: str | None, limit: int, before: str | None) -> list[ModelRecord]:
        """Return model versions, newest first; ``before`` is the last name of the page before."""

    def model(self, name: str) -> ModelRecord:
        """Return a version by its name, the newest of a strategy, or of ``…_latest``."""

    def place_of(self, name: str) -> ModelPlace:
        """Return where the files of a version are."""

    def files_of(self, name: str) -> AbstractContextManager[Path]:
        """Have the files of a model in a directory as long as the block runs."""

    def read_file(self, model: ModelRecord, file: str, take: Take) -> None:
        """Have a file of a version taken, part by part."""

    def verify(self, name: str) -> list[Finding]:
        """Compare the files of a version with what was persisted."""

    def strategies(self) -> list[StrategyEntry]:
        """Return the strategies of the strategies directory."""

    def check(self, strategy: str, overrides: Mapping[str, JsonValue], *, strict: bool) -> Checked:
        """Return what is wrong with a strategy, given as a file or a name."""

    def explain(self, strategy: str, overrides: Mapping[str, JsonValue]) -> Explanation:
        """Return what a strategy, given as a file or a name, would train; raises StrategyError."""

    def agents(self) -> Fleet:
        """Return every host agent that was heard of."""

    def default_mode(self) -> DefaultMode:
        """Return the mode of trainings for which none is named."""

    def set_default_mode(self, mode: Mode) -> None:
        """Set it, until it is set again."""

    def clean(self, *, apply: bool) -> Cleaning:
        """Look for what nobody needs any more, and remove it if ``apply`` says so."""

    def tokens(self) -> list[AccessToken]:
        """Return who may use the HTTP API, also those who may not any more, oldest first."""

    def create_token(self, name: str, role: Role, *, days: int | None) -> NewToken:
        """Make a token that lets nobody in after so many days; None: until it is revoked."""

    def revoke_token(self, id_or_name: str) -> AccessToken:
        """End a token, and return it as it was."""

    async def train(
        self,
        wish: TrainingWish,
        mode: Mode | None,
        *,
        stop: asyncio.Event,
        listener: TrainingListener,
        on_waiting: Callable[[str], None],
    ) -> OperationRecord:
        """Train, and return the operation once it has ended; cancels it when ``stop`` is set.

        ``on_waiting`` is told what it waits for, while nobody runs it.
        """

    def start(self, wish: TrainingWish, mode: Mode | None) -> Started:
        """Have it trained without waiting for it; when this returns, nothing loses it any more."""
