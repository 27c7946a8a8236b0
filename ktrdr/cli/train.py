"""`ktrdr train`."""

from typing import TYPE_CHECKING, Annotated

import typer

from ktrdr.cli.interrupts import run_until_interrupted, until_begun
from ktrdr.cli.output import (
    EXIT_CANCELLED,
    EXIT_FAILED,
    JsonOption,
    print_json,
    reporting_errors,
)
from ktrdr.cli.settings import DataOption, installation_for

if TYPE_CHECKING:
    import asyncio

    from pydantic import JsonValue

    from ktrdr.backend.records import OperationRecord
    from ktrdr.backend.wishes import TrainingWish
    from ktrdr.client.port import Installation
    from ktrdr.training.execution_mode_selector import Mode


def train(
    context: typer.Context,
    strategy: Annotated[str, typer.Argument(help="Strategy file, or a name from `ktrdr strategies list`.")],
    data: DataOption = None,
    start: Annotated[
        str | None, typer.Option(help="First bar: 2017-01-31 or 2017-01-31T22:00, UTC.", metavar="DATE")
    ] = None,
    end: Annotated[
        str | None, typer.Option(help="Last bar, likewise; a date includes its day.", metavar="DATE")
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            help="Change the strategy for this run, as in `--set training.epochs=20`; repeatable.",
            metavar="PATH=VALUE",
        ),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, max=2**63 - 1, help="Same seed, same weights. Default: random.")
    ] = None,
    mode: Annotated[
        str | None,
        typer.Option(
            help="`local`: here; `host`: on a host agent, by way of `ktrdr serve`, or here if there is none; "
            "`auto`: wherever it runs soonest.",
            show_default="see `ktrdr config get`",
            metavar="MODE",
        ),
    ] = None,
    lane: Annotated[
        str | None,
        typer.Option(
            help="Only host agents that serve this lane take it, and it waits for one.", show_default="any"
        ),
    ] = None,
    require_gpu: Annotated[
        bool, typer.Option("--require-gpu", help="Only what has a GPU trains it; on hosts, from lane gpu.")
    ] = False,
    detach: Annotated[
        bool, typer.Option("--detach", "-d", help="Train in the background; print the operation id.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Train a strategy and persist the model as a new version.

    Shows steps, epochs and losses as it goes, and at the end how the model compares with honest baselines.
    Ctrl-C cancels the training. One that was killed is picked up again when the same command is run; one on
    a host agent goes on, and `ktrdr ops watch` follows it.
    What others have left here unfinished is then finished too, unless Ctrl-C leaves it for later.
    Where it runs, and why, is kept with the operation: `ktrdr ops show`.
    """
    with reporting_errors(as_json=as_json), until_begun():
        installation = installation_for(context, data=data)
        from ktrdr.backend.wishes import TrainingWish
        from ktrdr.cli.config import parse_mode

        wish = TrainingWish(
            strategy,
            start=start,
            end=end,
            overrides=parse_overrides(overrides or []),
            seed=seed,
            lane=lane or ("gpu" if require_gpu else "any"),
            require_gpu=require_gpu,
            names_lane=lane is not None,
        )
        wanted = parse_mode(mode) if mode is not None else None
        (_start if detach else _train_and_show)(installation, wish, wanted, as_json=as_json)


def _train_and_show(
    installation: "Installation", wish: "TrainingWish", mode: "Mode | None", *, as_json: bool
) -> None:
    from ktrdr.backend.states import State
    from ktrdr.cli.training_view import TrainingView, outcome_as_json, print_outcome

    view = TrainingView(quiet=as_json, here=installation.here)

    async def train(stop: "asyncio.Event") -> "OperationRecord":
        with view:
            return await installation.train(
                wish, mode, stop=stop, listener=view.listener, on_waiting=view.waiting
            )

    record = run_until_interrupted(train, on_interrupt=view.interrupted)
    if as_json:
        print_json(outcome_as_json(record, installation))
    else:
        print_outcome(record, installation)
    if record.state is State.CANCELLED:
        raise typer.Exit(EXIT_CANCELLED)
    if record.state is not State.COMPLETED:
        raise typer.Exit(EXIT_FAILED)


def _start(installation: "Installation", wish: "TrainingWish", mode: "Mode | None", *, as_json: bool) -> None:
    from ktrdr.cli.started import print_started

    print_started(installation.start(wish, mode), as_json=as_json)


def parse_overrides(texts: list[str]) -> "dict[str, JsonValue]":
    """Return dotted path → value of ``path=value`` texts; a value is read as YAML, so ``5`` is a number.

    Raises:
        StrategyError: there is no ``=``, or the value is not YAML.
    """
    import yaml

    from ktrdr.errors import Problem, StrategyError

    values: dict[str, JsonValue] = {}
    problems = []
    for text in texts:
        path, equals, value = text.partition("=")
        if not equals or not path.strip():
            problems.append(Problem(path="", message=f"'{text}' is not PATH=VALUE, as in training.epochs=20"))
            continue
        try:
            values[path.strip()] = yaml.safe_load(value)
        except yaml.YAMLError:
            problems.append(
                Problem(path=path, message=f"'{value}' is not a YAML value; quote it if it is text")
            )
    if problems:
        raise StrategyError("--set", problems)
    return values
