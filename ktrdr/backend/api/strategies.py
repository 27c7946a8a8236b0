"""Strategies: which there are, and whether one is right."""

from http import HTTPStatus
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends
from pydantic import BaseModel, ConfigDict, Field, JsonValue, StringConstraints

from ktrdr.backend.api.access import Access
from ktrdr.backend.api.limits import FewAtOnce
from ktrdr.backend.api.problems import Problem, ProblemInStrategy, in_strategy
from ktrdr.backend.api.service import Service
from ktrdr.errors import StrategyError
from ktrdr.language.explained import Explanation
from ktrdr.registry import nearest_name

MAX_YAML_CHARACTERS = 256 * 1024

StrategyName = Annotated[str, StringConstraints(min_length=1, max_length=128)]
Overrides = Annotated[
    dict[str, JsonValue],
    Field(max_length=100, description="Dotted path → value, on top of the YAML."),
]


class StrategySummary(BaseModel):
    """One strategy of the strategies directory."""

    name: str
    status: Literal["trained", "untrained", "invalid"]
    versions: int = Field(0, description="Models that it has.")
    symbol: str | None = None
    timeframes: list[str] = Field(default_factory=list)
    description: str | None = None
    problems: int = Field(0, description="What is wrong with it; `POST …/validate` says it.")


class StrategyList(BaseModel):
    """The strategies."""

    success: Literal[True] = True
    strategies: list[StrategySummary]


class StrategyWish(BaseModel):
    """Which strategy: one of the directory, or a text."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"strategy_name": "eurusd_momentum"}]}
    )

    strategy_name: StrategyName | None = None
    strategy_yaml: str | None = Field(None, max_length=MAX_YAML_CHARACTERS)
    overrides: Overrides = Field(default_factory=dict)


class Validation(StrategyWish):
    """What to check."""

    strict: bool = Field(False, description="Whether warnings are problems too.")


class ValidationAnswer(BaseModel):
    """What is wrong with a strategy."""

    success: Literal[True] = True
    valid: bool
    name: str | None = None
    features: list[str] = Field(default_factory=list, description="Ids in the order of the network's inputs.")
    columns: int = Field(0, description="How many numbers the features are, for each bar.")
    problems: list[ProblemInStrategy] = Field(default_factory=list)
    warnings: list[ProblemInStrategy] = Field(default_factory=list)


class ExplanationAnswer(BaseModel):
    """What a strategy would train."""

    success: Literal[True] = True
    explanation: Explanation


def strategies_router(service: Service, access: Access, slow: FewAtOnce) -> APIRouter:
    """Return the routes; what is checked, is so by ``slow``."""
    router = APIRouter(
        prefix="/api/v1/strategies", tags=["strategies"], dependencies=[Depends(access.reading())]
    )
    directory = service.settings.strategies_dir

    def listed() -> StrategyList:
        # Not at module level: it brings pandas, which takes half a second.
        from ktrdr.strategy import StrategyDirectory

        versions = service.store.models.trained_strategies()
        return StrategyList(
            strategies=[_summary(path, versions) for path in StrategyDirectory(directory).list()]
        )

    def validated(wish: Validation) -> ValidationAnswer:
        from ktrdr.strategy import parse_strategy

        text, source = _text_of(wish, directory)
        try:
            parsed = parse_strategy(text, source=source, overrides=wish.overrides, strict=wish.strict)
        except StrategyError as error:
            return ValidationAnswer(valid=False, problems=[in_strategy(each) for each in error.problems])
        return ValidationAnswer(
            valid=True,
            name=parsed.name,
            features=list(parsed.strategy.feature_plan.feature_ids),
            columns=len(parsed.strategy.feature_plan.columns),
            warnings=[in_strategy(each) for each in parsed.warnings],
        )

    def explained(wish: StrategyWish) -> ExplanationAnswer:
        from ktrdr.language.explanation import explain
        from ktrdr.strategy import parse_strategy

        text, source = _text_of(wish, directory)
        return ExplanationAnswer(
            explanation=explain(parse_strategy(text, source=source, overrides=wish.overrides))
        )

    @router.get("", summary="List the strategies, and which are trained")
    async def list_strategies() -> StrategyList:
        return await slow.run(listed)

    @router.post("/validate", summary="Check a strategy without training it")
    async def validate(wish: Validation) -> ValidationAnswer:
        return await slow.run(lambda: validated(wish))

    @router.post("/explain", summary="Say what a strategy would train")
    async def explain(wish: StrategyWish) -> ExplanationAnswer:
        return await slow.run(lambda: explained(wish))

    return router


def _text_of(wish: StrategyWish, directory: Path) -> tuple[str, str]:
    """Return the text that is meant, and what to call it."""
    from ktrdr.strategy import read_strategy

    if (wish.strategy_name is None) == (wish.strategy_yaml is None):
        raise one_of_two()
    if wish.strategy_name is not None:
        return read_strategy(strategy_file(directory, wish.strategy_name)), wish.strategy_name
    return wish.strategy_yaml or "", "strategy"


def strategy_file(directory: Path, name: str) -> Path:
    """Return the file of a strategy of that name; a path is none, so that nothing else is ever read.

    Raises:
        Problem: there is none.
    """
    from ktrdr.strategy import StrategyDirectory

    files = {path.stem: path for path in reversed(StrategyDirectory(directory).list())}
    if name not in files:
        nearest = nearest_name(name, list(files))
        raise Problem(
            HTTPStatus.NOT_FOUND,
            "no-such-strategy",
            f"There is no strategy '{name[:128]}'." + (f" Did you mean '{nearest}'?" if nearest else ""),
            fix="See what there is (GET /api/v1/strategies), or send its text as `strategy_yaml`.",
        )
    return files[name]


def one_of_two() -> Problem:
    """Return the answer to a request that names no strategy, or two."""
    return Problem(
        HTTPStatus.BAD_REQUEST,
        "invalid-request",
        "Either `strategy_name` or `strategy_yaml` says which strategy.",
        fix="Give one of them, and not both.",
    )


def _summary(path: Path, versions: dict[str, int]) -> StrategySummary:
    from ktrdr.strategy import load_strategy

    try:
        strategy = load_strategy(path).strategy
    except StrategyError as error:
        return StrategySummary(name=path.stem, status="invalid", problems=len(error.problems))
    count = versions.get(strategy.name, 0)
    known: dict[str, Any] = {
        "symbol": strategy.symbol,
        "timeframes": list(strategy.timeframes),
        "description": strategy.description,
    }
    return StrategySummary(
        name=path.stem, status="trained" if count else "untrained", versions=count, **known
    )
