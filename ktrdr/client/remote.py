"""An installation elsewhere, by the HTTP API of its `ktrdr serve`."""

import asyncio
import re
import tempfile
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from contextlib import aclosing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from urllib.parse import quote

from pydantic import JsonValue, TypeAdapter

from ktrdr.app.deciding import waits_in_lane
from ktrdr.app.embedded import TrainingListener
from ktrdr.backend.log_reading import LogReader, LogRecord
from ktrdr.backend.looking import Fleet, ListedOperation, RecordedStory
from ktrdr.backend.records import ModelRecord, OperationRecord, Submission
from ktrdr.backend.refuse import Cleaning
from ktrdr.backend.states import State
from ktrdr.backend.tokens import AccessToken, NewToken, Role, check_token_name
from ktrdr.backend.wishes import DefaultMode, Preparation, RetryWish, TrainingWish
from ktrdr.client.dead_letters import DeadLetters, DeadLettersOfServer
from ktrdr.client.downloading import Take, download_model
from ktrdr.client.port import Cancellation, Checked, ModelPlace, Started, StrategyEntry
from ktrdr.client.server import API, Server
from ktrdr.client.streams import follow
from ktrdr.errors import (
    KtrdrError,
    OperationCancelledError,
    OperationNotFoundError,
    Problem,
    ServerError,
    ServerUnreachableError,
    StrategyError,
)
from ktrdr.events.log_lines import LogLevel
from ktrdr.language.explained import Explanation
from ktrdr.models.directory import Finding
from ktrdr.training.execution_mode_selector import Mode

_PART_OF_ID = re.compile(r"(?=.*[A-Za-z0-9])[A-Za-z0-9_.-]{1,64}")
_EXPLAIN_EVERY_S = 2.0
_PAGE = 1000


@dataclass(frozen=True, slots=True)
class _Begun:
    task_id: str
    warnings: list[Problem]
    bars: list[str]


@dataclass(frozen=True, slots=True)
class _LogPage:
    data: list[LogRecord]
    next_after: int | None


@dataclass(frozen=True, slots=True)
class _Verification:
    findings: list[Finding]


@dataclass(frozen=True, slots=True)
class _Strategies:
    strategies: list[StrategyEntry]


@dataclass(frozen=True, slots=True)
class _Validation:
    problems: list[Problem]
    warnings: list[Problem]
    features: list[str]
    columns: int


@dataclass(frozen=True, slots=True)
class _Explained:
    explanation: Explanation


@dataclass(frozen=True, slots=True)
class _Config:
    default_mode: Mode
    source: str


@dataclass(frozen=True, slots=True)
class _Tokens:
    tokens: list[AccessToken]


@dataclass(frozen=True, slots=True)
class _Revoked:
    before: AccessToken


_OPERATIONS = TypeAdapter(dict[str, list[ListedOperation]])
_STORY = TypeAdapter(RecordedStory)
_RECORD = TypeAdapter(OperationRecord)
_MODELS = TypeAdapter(dict[str, list[ModelRecord]])
_MODEL = TypeAdapter(ModelRecord)
_FLEET = TypeAdapter(Fleet)
_LINE = TypeAdapter(LogRecord)
_LOG_PAGE = TypeAdapter(_LogPage)
_BEGUN = TypeAdapter(_Begun)
_VERIFICATION = TypeAdapter(_Verification)
_STRATEGIES = TypeAdapter(_Strategies)
_VALIDATION = TypeAdapter(_Validation)
_EXPLAINED = TypeAdapter(_Explained)
_CONFIG = TypeAdapter(_Config)
_CLEANING = TypeAdapter(Cleaning)
_TOKENS = TypeAdapter(_Tokens)
_NEW_TOKEN = TypeAdapter(NewToken)
_REVOKED = TypeAdapter(_Revoked)
_ANYTHING: TypeAdapter[object] = TypeAdapter(object)


class ServedInstallation:
    """See `Installation`."""

    here = "on the server"

    def __init__(self, server: Server) -> None:
        self._server = server
        self.is_exposed = server.is_exposed
        self.dead_letters: DeadLetters = DeadLettersOfServer(server)

    # --- operations -------------------------------------------------------------------------------

    def list_operations(
        self, *, state: State | None, strategy: str | None, limit: int, before: str | None
    ) -> list[ListedOperation]:
        """See `Installation.list_operations`."""
        wanted = {"state": state, "strategy": strategy, "limit": limit, "before": before}
        return self._server.get("/records/operations", _OPERATIONS, **wanted)["operations"]

    def story(self, name: str | None) -> RecordedStory:
        """See `Installation.story`."""
        if name is None:
            newest = self.list_operations(state=None, strategy=None, limit=1, before=None)
            if not newest:
                raise OperationNotFoundError(
                    "There are no operations yet.", fix="Start one: ktrdr train STRATEGY"
                )
            name = newest[0].record.operation_id
        if not _PART_OF_ID.fullmatch(name):  # nor could it be a part of an address
            raise OperationNotFoundError(
                f"There is no operation '{name}'.", fix="See what there is: ktrdr ops list."
            )
        return self._server.get(f"/records/operations/{_quoted(name)}", _STORY)

    def cancel(self, name: str, reason: str) -> Cancellation:
        """See `Installation.cancel`."""
        before = self.story(name).record
        if before.state.terminal:
            return Cancellation(before, before)
        try:
            self._cancel(before.operation_id, reason)
        except ServerError as error:
            if error.code != "already-ended":
                raise
        return Cancellation(before, self.story(before.operation_id).record)

    def retry(self, name: str, wish: RetryWish) -> Started:
        """See `Installation.retry`."""
        operation_id = self.story(name).record.operation_id
        differs = {
            "execution_mode": wish.mode,
            "require_gpu": wish.require_gpu,
            "lane": wish.lane,
            "seed": wish.seed,
        }
        begun = self._server.submit(f"/operations/{_quoted(operation_id)}/retry", differs, _BEGUN)
        return Started(self.story(begun.task_id).record)

    async def watch(
        self, operation_id: str, on_away: Callable[[str], None]
    ) -> AsyncGenerator[OperationRecord, None]:
        """See `Installation.watch`; a server that is away is waited for."""
        path = f"/records/operations/{_quoted(operation_id)}/events"
        async with aclosing(follow(self._server, path, "record", on_away=on_away)) as told:
            async for data in told:
                yield self._server.read(_RECORD, data)

    def log(self, operation_id: str, level: LogLevel) -> list[LogRecord]:
        """See `Installation.log`."""
        path, lines, after = f"/operations/{_quoted(operation_id)}/logs", [], 0
        while True:
            page = self._server.get(path, _LOG_PAGE, after=after, limit=_PAGE, level=level)
            lines += page.data
            if page.next_after is None:
                return lines
            after = page.next_after

    async def follow_log(
        self, operation_id: str, on_away: Callable[[str], None]
    ) -> AsyncGenerator[list[LogRecord], None]:
        """See `Installation.follow_log`; a server that is away is waited for."""
        path, reader = f"/operations/{_quoted(operation_id)}/logs/stream", LogReader()
        async with aclosing(follow(self._server, path, "log", on_away=on_away)) as told:
            async for data in told:
                yield reader.read([self._server.read(_LINE, data)])

    # --- models -----------------------------------------------------------------------------------

    def list_models(self, *, strategy: str | None, limit: int, before: str | None) -> list[ModelRecord]:
        """See `Installation.list_models`."""
        wanted = {"strategy": strategy, "limit": limit, "before": before}
        return self._server.get("/records/models", _MODELS, **wanted)["models"]

    def model(self, name: str) -> ModelRecord:
        """See `Installation.model`."""
        return self._server.get(f"/records/models/{_quoted(name)}", _MODEL)

    def place_of(self, name: str) -> ModelPlace:
        """See `Installation.place_of`."""
        model = f"{self._server.url}{API}/models/{_quoted(name)}"
        return ModelPlace(f"{model}/files", f"{model}/report", f"{model}/files", f"{model}/report")

    @contextmanager
    def files_of(self, name: str) -> Iterator[Path]:
        """See `Installation.files_of`; they are fetched, and compared with what was persisted."""
        record = self.model(name)
        with tempfile.TemporaryDirectory(prefix="ktrdr-model-") as directory:
            yield download_model(record, Path(directory), partial(self.read_file, record))

    def read_file(self, model: ModelRecord, file: str, take: Take) -> None:
        """See `Installation.read_file`."""
        self._server.download(f"/models/{_quoted(model.name)}/files/{quote(file, safe='')}", take)

    def verify(self, name: str) -> list[Finding]:
        """See `Installation.verify`; the server compares."""
        return self._server.get(f"/records/verifications/{_quoted(name)}", _VERIFICATION).findings

    # --- strategies -------------------------------------------------------------------------------

    def strategies(self) -> list[StrategyEntry]:
        """See `Installation.strategies`."""
        return self._server.get("/strategies", _STRATEGIES).strategies

    def check(self, strategy: str, overrides: Mapping[str, JsonValue], *, strict: bool) -> Checked:
        """See `Installation.check`."""
        wish = {**_sent(strategy), "overrides": dict(overrides), "strict": strict}
        found = self._server.post("/strategies/validate", wish, _VALIDATION)
        return Checked(strategy, found.problems, found.warnings, found.features, found.columns)

    def explain(self, strategy: str, overrides: Mapping[str, JsonValue]) -> Explanation:
        """See `Installation.explain`."""
        wish = {**_sent(strategy), "overrides": dict(overrides)}
        try:
            return self._server.post("/strategies/explain", wish, _EXPLAINED).explanation
        except StrategyError as error:
            raise StrategyError(strategy, error.problems) from error

    # --- agents and configuration -----------------------------------------------------------------

    def agents(self) -> Fleet:
        """See `Installation.agents`."""
        return self._server.get("/records/agents", _FLEET)

    def default_mode(self) -> DefaultMode:
        """See `Installation.default_mode`."""
        found = self._server.get("/trainings/config", _CONFIG)
        return DefaultMode(found.default_mode, found.source)

    def set_default_mode(self, mode: Mode) -> None:
        """See `Installation.set_default_mode`."""
        self._server.put("/trainings/config", {"default_mode": mode})

    def clean(self, *, apply: bool) -> Cleaning:
        """See `Installation.clean`; what is removed is removed once, whoever asks."""
        if not apply:
            return self._server.get("/cleaning", _CLEANING)
        try:
            return self._server.make("/cleaning", None, _CLEANING)
        except ServerUnreachableError as error:
            raise ServerUnreachableError(
                f"{error.message} It may have been done.", fix="See what is left: ktrdr clean"
            ) from error

    def tokens(self) -> list[AccessToken]:
        """See `Installation.tokens`."""
        return self._server.get("/tokens", _TOKENS).tokens

    def create_token(self, name: str, role: Role, *, days: int | None) -> NewToken:
        """See `Installation.create_token`; whoever asks has the role admin, which includes every other."""
        check_token_name(name)
        wish = {"name": name, "role": role, "days": days}
        try:
            return self._server.make("/tokens", wish, _NEW_TOKEN)
        except ServerUnreachableError as error:
            raise ServerUnreachableError(
                f"{error.message} The token may have been made.",
                fix=f"See whether it was (ktrdr tokens list), and revoke it: ktrdr tokens revoke '{name}'",
            ) from error

    def revoke_token(self, id_or_name: str) -> AccessToken:
        """See `Installation.revoke_token`."""
        return self._server.post("/tokens/revoke", {"token": id_or_name}, _REVOKED).before

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
        """See `Installation.train`; the training goes on if this process ends without asking otherwise."""
        if stop.is_set():
            raise OperationCancelledError("Cancelled before anything was started.")
        begun, record = await asyncio.to_thread(self._submit, wish, mode)
        listener.on_prepared(Preparation(str(wish.strategy), tuple(begun.warnings), tuple(begun.bars)))
        listener.on_submitted(Submission(record, resumed=False))
        beside = [
            asyncio.create_task(self._cancel_when_set(stop, record.operation_id)),
            asyncio.create_task(self._explain(record.operation_id, on_waiting)),
        ]
        watching = asyncio.create_task(self._until_ended(record, listener, on_waiting))
        try:
            # Who cannot cancel must say so, and not wait on.
            await asyncio.wait((watching, beside[0]), return_when=asyncio.FIRST_COMPLETED)
            if beside[0].done():
                beside[0].result()
            return await watching
        finally:
            for task in (watching, *beside):
                task.cancel()
            await asyncio.gather(watching, *beside, return_exceptions=True)

    def start(self, wish: TrainingWish, mode: Mode | None) -> Started:
        """See `Installation.start`."""
        return Started(self._submit(wish, mode)[1])

    def _submit(self, wish: TrainingWish, mode: Mode | None) -> tuple[_Begun, OperationRecord]:
        waits_in_lane(wish, mode)
        asked = {
            **_sent(str(wish.strategy)),
            "start_date": wish.start,
            "end_date": wish.end,
            "overrides": dict(wish.overrides),
            "execution_mode": mode,
            "require_gpu": wish.require_gpu,
            "lane": wish.lane if wish.names_lane else None,
            "seed": wish.seed,
        }
        try:
            begun = self._server.submit("/trainings", asked, _BEGUN)
        except StrategyError as error:
            raise StrategyError(str(wish.strategy), error.problems) from error
        return begun, self.story(begun.task_id).record

    async def _until_ended(
        self, record: OperationRecord, listener: TrainingListener, on_away: Callable[[str], None]
    ) -> OperationRecord:
        async with aclosing(self.watch(record.operation_id, on_away)) as records:
            async for newest in records:
                listener.on_change(newest)
                record = newest
        return record

    async def _explain(self, operation_id: str, on_waiting: Callable[[str], None]) -> None:
        """Tell what it waits for, whenever that is something else than before, until it has ended."""
        told = None
        while True:
            await asyncio.sleep(_EXPLAIN_EVERY_S)
            try:
                story = await asyncio.to_thread(self.story, operation_id)
            except KtrdrError:
                continue  # who watches says so
            if story.record.state.terminal:
                return
            if story.waits_for and story.waits_for != told:
                on_waiting(story.waits_for)
                told = story.waits_for

    async def _cancel_when_set(self, stop: asyncio.Event, operation_id: str) -> None:
        await stop.wait()
        try:
            await asyncio.to_thread(self._cancel, operation_id, "interrupted by the user")
        except ServerError as error:
            if error.code == "already-ended":
                return
            raise ServerError(
                f"{operation_id} goes on, as it could not be cancelled. {error.message}",
                fix=f"Cancel it later: ktrdr ops cancel {operation_id}",
            ) from error

    def _cancel(self, operation_id: str, reason: str) -> None:
        self._server.post(f"/operations/{_quoted(operation_id)}/cancel", {"reason": reason}, _ANYTHING)


def _sent(strategy: str) -> dict[str, str]:
    """Return how a strategy is sent: the text of a file that is here, else its name."""
    from ktrdr.strategy import read_strategy

    path = Path(strategy)
    if path.is_file():
        return {"strategy_yaml": read_strategy(path)}
    if path.name != strategy or path.suffix in (".yaml", ".yml"):
        raise StrategyError(strategy, [Problem("", "there is no such file")])
    return {"strategy_name": strategy}


def _quoted(text: str) -> str:
    """Return it as a part of an address, which has no ``..`` that leads elsewhere."""
    parts = quote(text, safe="/").split("/")
    return "/".join(part if part.strip(".") else part.replace(".", "%2E") for part in parts)
