"""`ktrdr train`."""

from typing import TYPE_CHECKING, Annotated

import typer

from ktrdr.cli.output import (
    EXIT_CANCELLED,
    EXIT_FAILED,
    JsonOption,
    err,
    out,
    print_json,
    print_warning,
    reporting_errors,
)
from ktrdr.cli.settings import DataOption, settings_for

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Coroutine

    from pydantic import JsonValue

    from ktrdr.backend.records import OperationRecord
    from ktrdr.backend.wishes import TrainingWish
    from ktrdr.cli.training_view import TrainingView
    from ktrdr.settings import Settings
    from ktrdr.training.execution_mode_selector import Decision


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
    Where it runs, and why, is kept with the operation: `ktrdr ops show`.
    """
    with reporting_errors(as_json=as_json):
        settings = settings_for(context, data_dir=data)
        from ktrdr.app.deciding import decide_for_command
        from ktrdr.backend.wishes import TrainingWish
        from ktrdr.cli.config import parse_mode
        from ktrdr.training.execution_mode_selector import Place

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
        decision = decide_for_command(settings, wish, parse_mode(mode) if mode is not None else None)
        if decision is not None and decision.where is Place.LOCAL:
            (_train_detached if detach else _train_here)(wish, settings, decision, as_json=as_json)
        else:
            (_train_on_hosts_detached if detach else _train_on_hosts)(
                wish, settings, decision, as_json=as_json
            )


def _train_here(wish: "TrainingWish", settings: "Settings", decision: "Decision", *, as_json: bool) -> None:
    from ktrdr.app.embedded import train_embedded

    _train_and_show(
        lambda view, stop: train_embedded(
            wish, settings, stop=stop, listener=view.listener, decision=decision
        ),
        settings,
        as_json=as_json,
    )


def _train_on_hosts(
    wish: "TrainingWish", settings: "Settings", decision: "Decision | None", *, as_json: bool
) -> None:
    from ktrdr.app.submitting import train_on_hosts

    _train_and_show(
        lambda view, stop: train_on_hosts(
            wish, settings, stop=stop, listener=view.listener, on_waiting=view.waiting, decision=decision
        ),
        settings,
        as_json=as_json,
    )


def _train_and_show(
    work: "Callable[[TrainingView, asyncio.Event], Coroutine[None, None, OperationRecord]]",
    settings: "Settings",
    *,
    as_json: bool,
) -> None:
    from ktrdr.backend.states import State
    from ktrdr.cli.interrupts import run_until_interrupted
    from ktrdr.cli.training_view import TrainingView, outcome_as_json, print_outcome

    with TrainingView(quiet=as_json) as view:
        record = run_until_interrupted(
            lambda stop: work(view, stop),
            on_interrupt=view.interrupted,
        )
    if as_json:
        print_json(outcome_as_json(record, settings))
    else:
        print_outcome(record, settings)
    if record.state is State.CANCELLED:
        raise typer.Exit(EXIT_CANCELLED)
    if record.state is not State.COMPLETED:
        raise typer.Exit(EXIT_FAILED)


def _train_on_hosts_detached(
    wish: "TrainingWish", settings: "Settings", decision: "Decision | None", *, as_json: bool
) -> None:
    from ktrdr.app.submitting import submit_to_hosts
    from ktrdr.backend.store import OperationStore

    with OperationStore.open(settings) as store:
        record = submit_to_hosts(wish, settings, store, decision=decision)
        is_served = store.is_served()
    if as_json:
        print_json({**_submitted(record), "served": is_served})
        return
    out.print(record.operation_id)
    if not is_served:
        print_warning("No `ktrdr serve` runs on this database: the training waits for one.")
    err.print(f"Follow it: ktrdr ops watch {record.operation_id}", soft_wrap=True)


def _train_detached(
    wish: "TrainingWish", settings: "Settings", decision: "Decision", *, as_json: bool
) -> None:
    import asyncio

    from ktrdr.app.embedded import submit_for_later
    from ktrdr.cli.work import start_worker

    record = asyncio.run(submit_for_later(wish, settings, decision))
    log = start_worker(settings)
    if as_json:
        print_json({**_submitted(record), "log": log})
        return
    _warn_of_fallback(decision)
    out.print(record.operation_id)
    err.print(
        f"Trains in the background (log: {log}). Follow it: ktrdr ops watch {record.operation_id}",
        soft_wrap=True,
    )


def _submitted(record: "OperationRecord") -> dict[str, object]:
    from ktrdr.cli.training_view import decision_as_json

    return {"operation_id": record.operation_id, "state": record.state, **decision_as_json(record)}


def _warn_of_fallback(decision: "Decision") -> None:
    if decision.is_fallback:
        print_warning(f"It runs here: {decision.reason}.")


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
