"""The installation of this machine: its database, its directories, and training in this process."""

import asyncio
import getpass
import os
import socket
import subprocess
import sys
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from contextlib import aclosing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

from pydantic import JsonValue

from ktrdr.app.cleaning import clean_now
from ktrdr.app.deciding import decide_for_command, default_mode, set_default_mode
from ktrdr.app.embedded import TrainingListener, submit_for_later, train_embedded
from ktrdr.app.retrying import retry_for_command
from ktrdr.app.submitting import submit_to_hosts, train_on_hosts
from ktrdr.backend import looking
from ktrdr.backend.audit import witness_by
from ktrdr.backend.log_reading import LogRecord, LogTail, read_log
from ktrdr.backend.looking import Fleet, ListedOperation, RecordedStory
from ktrdr.backend.records import ModelRecord, OperationRecord
from ktrdr.backend.refuse import Cleaning
from ktrdr.backend.states import State
from ktrdr.backend.store import OperationStore
from ktrdr.backend.tokens import AccessToken, AccessTokens, NewToken, Role
from ktrdr.backend.watching import Feed
from ktrdr.backend.wishes import DefaultMode, RetryWish, TrainingWish
from ktrdr.blobs.verified import read_chunks
from ktrdr.client.dead_letters import DeadLetters, DeadLettersOfBroker
from ktrdr.client.downloading import Take
from ktrdr.client.port import Cancellation, Checked, ModelPlace, Started, StrategyEntry
from ktrdr.clock import SystemClock
from ktrdr.errors import StrategyError
from ktrdr.events.log_lines import LogLevel
from ktrdr.language.explained import Explanation
from ktrdr.models.directory import Finding, ModelDirectory
from ktrdr.settings import Settings
from ktrdr.training.execution_mode_selector import Decision, Mode, Place


class EmbeddedInstallation:
    """See `Installation`. Nothing is created by looking at what there is not yet."""

    here = "here"
    is_exposed = False

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.dead_letters: DeadLetters = DeadLettersOfBroker(settings)

    # --- operations -------------------------------------------------------------------------------

    def list_operations(
        self, *, state: State | None, strategy: str | None, limit: int, before: str | None
    ) -> list[ListedOperation]:
        """See `Installation.list_operations`."""
        if not self._exists:
            return []
        with self._store() as store:
            return looking.list_operations(store, state=state, strategy=strategy, limit=limit, before=before)

    def story(self, name: str | None) -> RecordedStory:
        """See `Installation.story`."""
        with self._store() as store:
            return looking.story_of(store, name)

    def cancel(self, name: str, reason: str) -> Cancellation:
        """See `Installation.cancel`."""
        with self._store() as store:
            before = store.find(name)
            return Cancellation(before, store.cancel(before.operation_id, reason))

    def retry(self, name: str, wish: RetryWish) -> Started:
        """See `Installation.retry`."""
        record, decision = retry_for_command(self._settings, name, wish)
        return self._started(record, decision)

    async def watch(
        self, operation_id: str, on_away: Callable[[str], None]
    ) -> AsyncGenerator[OperationRecord, None]:
        """See `Installation.watch`; a database is never away for long."""
        with self._store() as store:
            async with Feed(store, SystemClock()) as feed, aclosing(feed.watch(operation_id)) as records:
                async for record in records:
                    yield record

    def log(self, operation_id: str, level: LogLevel) -> list[LogRecord]:
        """See `Installation.log`."""
        with self._store() as store:
            return read_log(store, operation_id, level=level)

    async def follow_log(
        self, operation_id: str, on_away: Callable[[str], None]
    ) -> AsyncGenerator[list[LogRecord], None]:
        """See `Installation.follow_log`."""
        with self._store() as store:
            tail = LogTail(store, operation_id, clock=SystemClock(), offload=asyncio.to_thread)
            async with aclosing(tail.follow()) as parts:
                async for lines in parts:
                    yield lines

    # --- models -----------------------------------------------------------------------------------

    def list_models(self, *, strategy: str | None, limit: int, before: str | None) -> list[ModelRecord]:
        """See `Installation.list_models`."""
        if not self._exists:
            return []
        with self._store() as store:
            return store.models.list_models(strategy=strategy, limit=limit, before=before)

    def model(self, name: str) -> ModelRecord:
        """See `Installation.model`."""
        with self._store() as store:
            return store.models.find(name)

    def place_of(self, name: str) -> ModelPlace:
        """See `Installation.place_of`."""
        path = self._settings.models_dir / name
        report = path.absolute() / "report.html"
        return ModelPlace(str(path), report.as_uri(), str(path.absolute()), str(report))

    @contextmanager
    def files_of(self, name: str) -> Iterator[Path]:
        """See `Installation.files_of`; a version directory may be named by its path too."""
        for path in (Path(name), self._settings.models_dir / name):
            if (path / "metadata.json").is_file():
                yield path
                return
        yield self._settings.models_dir / self.model(name).name

    def read_file(self, model: ModelRecord, file: str, take: Take) -> None:
        """See `Installation.read_file`."""
        take(read_chunks(ModelDirectory(self._settings.models_dir).path(model.name) / file))

    def verify(self, name: str) -> list[Finding]:
        """See `Installation.verify`."""
        record = self.model(name)
        return ModelDirectory(self._settings.models_dir).verify(record.name, record.files)

    # --- strategies -------------------------------------------------------------------------------

    def strategies(self) -> list[StrategyEntry]:
        """See `Installation.strategies`."""
        from ktrdr.strategy import StrategyDirectory

        versions: dict[str, int] = {}
        if self._exists:
            with self._store() as store:
                versions = store.models.trained_strategies()
        return [_entry(path, versions) for path in StrategyDirectory(self._settings.strategies_dir).list()]

    def check(self, strategy: str, overrides: Mapping[str, JsonValue], *, strict: bool) -> Checked:
        """See `Installation.check`."""
        from ktrdr.strategy import StrategyDirectory, load_strategy

        path = StrategyDirectory(self._settings.strategies_dir).find(strategy)
        try:
            parsed = load_strategy(path, overrides, strict=strict)
        except StrategyError as error:
            return Checked(str(path), problems=error.problems)
        plan = parsed.strategy.feature_plan
        return Checked(
            str(path),
            warnings=parsed.warnings,
            features=plan.feature_ids,
            columns=len(plan.columns),
        )

    def explain(self, strategy: str, overrides: Mapping[str, JsonValue]) -> Explanation:
        """See `Installation.explain`."""
        from ktrdr.language.explanation import explain
        from ktrdr.strategy import StrategyDirectory, load_strategy

        path = StrategyDirectory(self._settings.strategies_dir).find(strategy)
        return explain(load_strategy(path, overrides))

    # --- agents and configuration -----------------------------------------------------------------

    def agents(self) -> Fleet:
        """See `Installation.agents`."""
        if not self._exists:
            return Fleet((), {}, is_served=False, now=datetime.now(UTC))
        with self._store() as store:
            return looking.fleet_of(store)

    def default_mode(self) -> DefaultMode:
        """See `Installation.default_mode`."""
        if not self._exists:
            return default_mode(self._settings, None)
        with self._store() as store:
            return default_mode(self._settings, store)

    def set_default_mode(self, mode: Mode) -> None:
        """See `Installation.set_default_mode`."""
        with OperationStore.open(self._settings) as store:
            set_default_mode(store, mode, witness=witness_by(_who(), "config set"))

    def clean(self, *, apply: bool) -> Cleaning:
        """See `Installation.clean`."""
        return clean_now(self._settings, apply=apply)

    def tokens(self) -> list[AccessToken]:
        """See `Installation.tokens`."""
        if not self._exists:
            return []
        with self._store() as store:
            return AccessTokens(store).list()

    def create_token(self, name: str, role: Role, *, days: int | None) -> NewToken:
        """See `Installation.create_token`."""
        with OperationStore.open(self._settings) as store:
            expires_at = store.now() + timedelta(days=days) if days is not None else None
            seen = witness_by(_who(), "tokens create")
            return AccessTokens(store).create(name, role, expires_at=expires_at, witness=seen)

    def revoke_token(self, id_or_name: str) -> AccessToken:
        """See `Installation.revoke_token`."""
        with self._store() as store:
            return AccessTokens(store).revoke(id_or_name, witness=witness_by(_who(), "tokens revoke"))

    # --- training ---------------------------------------------------------------------------------

    async def train(
        self,
        wish: TrainingWish,
        mode: Mode | None,
        *,
        stop: asyncio.Event,
        listener: TrainingListener,
        on_waiting: Callable[[str], None],
    ) -> OperationRecord:
        """See `Installation.train`."""
        decision = await asyncio.to_thread(decide_for_command, self._settings, wish, mode)
        if _is_here(decision):
            return await train_embedded(wish, self._settings, stop=stop, listener=listener, decision=decision)
        return await train_on_hosts(
            wish, self._settings, stop=stop, listener=listener, on_waiting=on_waiting, decision=decision
        )

    def start(self, wish: TrainingWish, mode: Mode | None) -> Started:
        """See `Installation.start`."""
        decision = decide_for_command(self._settings, wish, mode)
        if _is_here(decision):
            return self._started(asyncio.run(submit_for_later(wish, self._settings, decision)), decision)
        with OperationStore.open(self._settings) as store:
            record = submit_to_hosts(wish, self._settings, store, decision=decision)
        return self._started(record, decision)

    def _started(self, record: OperationRecord, decision: Decision | None) -> Started:
        """Have somebody carry what was recorded, and tell who."""
        if _is_here(decision):
            log = _start_worker(self._settings)
            warnings = [decision.sentence] if decision and decision.is_fallback else []
            return Started(record, warnings, log, {"log": str(log)})
        with self._store() as store:
            is_served = store.is_served()
        warning = "No `ktrdr serve` runs on this database: the training waits for one."
        return Started(record, [] if is_served else [warning], more={"served": is_served})

    @property
    def _exists(self) -> bool:
        return OperationStore.exists(self._settings)

    def _store(self) -> OperationStore:
        return OperationStore.open(self._settings, create=False)


def _who() -> str:
    try:
        user = getpass.getuser()
    except (OSError, KeyError):  # a container may have no user of that number
        user = "?"
    return f"{user}@{socket.gethostname()}"


def _is_here(decision: Decision | None) -> bool:
    return decision is not None and decision.where is Place.LOCAL


def _entry(path: Path, versions: Mapping[str, int]) -> StrategyEntry:
    from ktrdr.strategy import load_strategy

    try:
        strategy = load_strategy(path).strategy
    except StrategyError as error:
        return StrategyEntry(path.stem, "invalid", str(path), problems=len(error.problems))
    count = versions.get(strategy.name, 0)
    return StrategyEntry(
        path.stem,
        "trained" if count else "untrained",
        str(path),
        versions=count,
        symbol=strategy.symbol,
        timeframes=tuple(strategy.timeframes),
        description=strategy.description,
    )


def _start_worker(settings: Settings) -> Path:
    """Start ``ktrdr work`` as a process of its own that outlives this one; return its log file."""
    log = settings.logs_dir.absolute() / f"work-{datetime.now(UTC):%Y%m%d-%H%M%S}-{os.getpid()}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    variables = {
        f"KTRDR_{name.upper()}": str(path.absolute())
        for name, path in (("home", settings.home), ("models_dir", settings.models_dir))
    }
    with log.open("wb") as output:
        subprocess.Popen(
            [sys.executable, "-m", "ktrdr.cli.main", "work"],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **variables},
            start_new_session=True,
        )
    return log
