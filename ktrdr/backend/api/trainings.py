"""Trainings: started, and where they run by default."""

from collections.abc import Awaitable, Callable, Sequence
from http import HTTPStatus
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Header, Request, Response
from pydantic import BaseModel, ConfigDict, Field, JsonValue, StringConstraints
from starlette.concurrency import run_in_threadpool

from ktrdr.backend.api.access import Access
from ktrdr.backend.api.auditing import was_written_down, witness_of
from ktrdr.backend.api.operations import NAME
from ktrdr.backend.api.problems import ProblemInStrategy, in_strategy
from ktrdr.backend.api.service import Service
from ktrdr.backend.api.strategies import (
    MAX_YAML_CHARACTERS,
    Overrides,
    StrategyName,
    one_of_two,
    strategy_file,
)
from ktrdr.backend.api.views import OperationDetail, detail
from ktrdr.backend.sharing import Shared
from ktrdr.backend.tokens import Role
from ktrdr.backend.wishes import Accepted, DefaultMode, StrategyText, TrainingWish
from ktrdr.training.execution_mode_selector import Mode, Place

_Item = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=64)]
_Moment = Annotated[str, StringConstraints(max_length=40)]
IdempotencyKey = Annotated[
    str | None,
    Header(
        pattern=r"^[\x21-\x7e]{1,255}$",
        description="Asking again under the same key starts nothing new, and answers the same.",
    ),
]


class StartTraining(BaseModel):
    """What to train: a strategy of the directory, or a text, and what differs from it for this run."""

    model_config = ConfigDict(
        # A misspelt wish must not be a training that was not meant.
        extra="forbid",
        json_schema_extra={
            "examples": [
                {"strategy_name": "eurusd_momentum", "seed": 7},
                {
                    "strategy_name": "eurusd_momentum",
                    "start_date": "2017-01-01",
                    "end_date": "2017-06-30",
                    "execution_mode": "host",
                    "overrides": {"training.epochs": 20},
                },
            ]
        },
    )

    strategy_name: StrategyName | None = Field(None, description="Of a file in the strategies directory.")
    strategy_yaml: str | None = Field(None, max_length=MAX_YAML_CHARACTERS, description="The text itself.")
    symbols: list[_Item] | None = Field(
        None, min_length=1, max_length=100, description="In place of the YAML's."
    )
    timeframes: list[_Item] | None = Field(
        None, min_length=1, max_length=20, description="In place of the YAML's."
    )
    start_date: _Moment | None = Field(None, description="First bar: a date, or a date and time, in UTC.")
    end_date: _Moment | None = Field(None, description="Last bar, likewise; a date includes its day.")
    overrides: Overrides = Field(default_factory=dict)
    execution_mode: Mode | None = Field(None, description="Default: as `/trainings/config` says.")
    require_gpu: bool = False
    lane: str | None = Field(
        None,
        pattern=NAME,
        description="Only host agents that serve it take it, and it waits for one; it never runs elsewhere. "
        "Default: `gpu` if it requires one, else `any`, and it may run elsewhere as its mode says.",
    )
    seed: int | None = Field(None, ge=0, lt=2**63, description="Same seed, same weights; default: random.")
    task_id: str | None = Field(
        None, max_length=128, description="Of former clients; the backend names operations."
    )
    detailed_analytics: bool = Field(False, description="Of former clients; every model has a whole report.")


class DecisionView(BaseModel):
    """Where a training runs, and why."""

    mode: Mode = Field(description="What was asked for, or the default.")
    where: Place
    reason: str
    is_fallback: bool = Field(description="Whether it runs here although it was to run on a host.")


class TrainingAccepted(BaseModel):
    """A training that nothing loses any more."""

    success: Literal[True] = True
    task_id: str = Field(description="The id of the operation.")
    status: Literal["training_started"] = "training_started"
    message: str
    symbols: list[str]
    timeframes: list[str]
    strategy_name: str
    created: bool = Field(description="False: it was asked for before, under the same Idempotency-Key.")
    decision: DecisionView
    operation: OperationDetail
    warnings: list[ProblemInStrategy] = Field(
        default_factory=list, description="What the strategy says to no effect, or in an outdated way."
    )
    bars: list[str] = Field(
        default_factory=list,
        description="A line for each timeframe: which bars there are, and which are missing. Empty if it was "
        "asked for before.",
        examples=[["EURUSD_1h.csv: 6,250 bars of 1h from 2017-01-01 22:00 to 2017-12-29 21:00 UTC; no gaps"]],
    )


class TrainingConfig(BaseModel):
    """Where trainings run that do not say it."""

    model_config = ConfigDict(extra="forbid")

    default_mode: Mode


class TrainingConfigAnswer(TrainingConfig):
    """Where trainings run that do not say it."""

    success: Literal[True] = True
    source: str = Field(description="Who says so, in words.")


def trainings_router(service: Service, access: Access) -> APIRouter:
    """Return the routes."""
    router = APIRouter(prefix="/api/v1/trainings", tags=["trainings"])
    trainings = service.trainings
    finding: Shared[Path] = Shared(run_in_threadpool)

    async def find(strategy: str) -> Path:
        return await finding.of(strategy, lambda: strategy_file(service.settings.strategies_dir, strategy))

    async def start(
        request: Request,
        response: Response,
        wish: StartTraining,
        idempotency_key: IdempotencyKey = None,
    ) -> TrainingAccepted:
        accepted = await trainings.submit(
            await _wish(wish, find),
            mode=wish.execution_mode,
            idempotency_key=idempotency_key,
            witness=witness_of(request),
        )
        operation_id = accepted.operation.operation_id
        note_acceptance(request, accepted)
        response.headers["Location"] = f"/api/v1/operations/{operation_id}"
        return accepted_view(accepted, wish.symbols or (), wish.timeframes or ())

    operator = [Depends(access.writing(Role.OPERATOR))]
    for path, title in (("", "Start a training"), ("/start", "The same, where former clients look for it")):
        router.post(path, status_code=HTTPStatus.ACCEPTED, dependencies=operator, summary=title)(start)

    @router.get("/config", dependencies=[Depends(access.reading())], summary="Where trainings run by default")
    async def config() -> TrainingConfigAnswer:
        return _config(await trainings.default_mode())

    @router.put(
        "/config",
        dependencies=[Depends(access.writing(Role.ADMIN))],
        summary="Change where they run by default",
    )
    async def set_config(request: Request, wanted: TrainingConfig) -> TrainingConfigAnswer:
        request.state.subject = f"default_mode={wanted.default_mode}"
        await trainings.set_default_mode(wanted.default_mode, witness=witness_of(request))
        was_written_down(request)
        return _config(await trainings.default_mode())

    return router


def _config(default: DefaultMode) -> TrainingConfigAnswer:
    return TrainingConfigAnswer(default_mode=default.mode, source=default.source)


async def _wish(wish: StartTraining, find: Callable[[str], Awaitable[Path]]) -> TrainingWish:
    strategy: Any
    if wish.strategy_name is not None and wish.strategy_yaml is None:
        strategy = await find(wish.strategy_name)
    elif wish.strategy_yaml is not None and wish.strategy_name is None:
        strategy = StrategyText(wish.strategy_yaml)
    else:
        raise one_of_two()
    return TrainingWish(
        strategy,
        start=wish.start_date,
        end=wish.end_date,
        overrides=_overrides(wish),
        seed=wish.seed,
        lane=wish.lane or ("gpu" if wish.require_gpu else "any"),
        require_gpu=wish.require_gpu,
        names_lane=wish.lane is not None,
    )


def _overrides(wish: StartTraining) -> dict[str, JsonValue]:
    overrides: dict[str, JsonValue] = {}
    match wish.symbols:
        case [symbol]:
            overrides["training_data.symbols"] = {"mode": "single", "symbol": symbol}
        case [*symbols] if symbols:
            overrides["training_data.symbols"] = {"mode": "multi_symbol", "list": list(symbols)}
    match wish.timeframes:
        case [timeframe]:
            overrides["training_data.timeframes"] = {"mode": "single", "timeframe": timeframe}
        case [*timeframes] if timeframes:
            overrides["training_data.timeframes"] = {"mode": "multi_timeframe", "list": list(timeframes)}
    return {**overrides, **wish.overrides}


def note_acceptance(request: Request, accepted: Accepted) -> None:
    """Take note that a request has made its operation, and written it down, or has found the one it made."""
    request.state.subject = accepted.operation.operation_id
    if accepted.created:
        was_written_down(request)


def accepted_view(
    accepted: Accepted, symbols: Sequence[str] = (), timeframes: Sequence[str] = ()
) -> TrainingAccepted:
    """Return how an accepted training is answered, with what was asked for by name, if it was."""
    operation, decision, told = accepted.operation, accepted.decision, accepted.preparation
    return TrainingAccepted(
        task_id=operation.operation_id,
        message=f"Training {operation.strategy} on {operation.symbol}; {decision.reason}.",
        symbols=list(symbols) or [operation.symbol],
        timeframes=list(timeframes) or [operation.timeframe],
        strategy_name=operation.strategy,
        created=accepted.created,
        decision=DecisionView.model_validate(decision, from_attributes=True),
        operation=detail(operation),
        warnings=[in_strategy(each) for each in told.warnings] if told is not None else [],
        bars=list(told.bars) if told is not None else [],
    )
