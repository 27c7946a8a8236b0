"""`ktrdr ops`: operations, running and past."""

import asyncio
from contextlib import aclosing
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from ktrdr.cli.output import (
    EXIT_FAILED,
    JsonOption,
    ago,
    duration,
    err,
    facts,
    out,
    print_json,
    reporting_errors,
    table,
)
from ktrdr.cli.settings import installation_for

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ktrdr.backend.records import OperationRecord
    from ktrdr.cli.log_view import LogView
    from ktrdr.cli.training_view import TrainingView
    from ktrdr.client.port import Installation

app = typer.Typer(help="Operations: what runs, what ran, and how it ended.", no_args_is_help=True)

IdArgument = Annotated[str, typer.Argument(help="Operation id, or its unique beginning or end.")]

_STATE_STYLES = {
    "pending": "cyan",
    "queued": "cyan",
    "running": "blue",
    "cancelling": "yellow",
    "completed": "green",
    "failed": "red",
    "cancelled": "yellow",
}


@app.command("list")
def list_operations(
    context: typer.Context,
    state: Annotated[
        str | None, typer.Option("--state", "-s", help="Only those in this state, as in `failed`.")
    ] = None,
    strategy: Annotated[str | None, typer.Option(help="Only those of this strategy.")] = None,
    limit: Annotated[int, typer.Option("--limit", "-l", min=1, max=1000, help="At most so many.")] = 20,
    before: Annotated[
        str | None, typer.Option(help="Only those older than this operation: the next page.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """List operations, newest first."""
    with reporting_errors(as_json=as_json):
        from ktrdr.backend.states import State
        from ktrdr.errors import SettingsError

        if state is not None and state not in list(State):
            raise SettingsError(f"'{state}' is not a state.", fix=f"Choose one of: {', '.join(State)}.")
        found = installation_for(context).list_operations(
            state=State(state) if state else None, strategy=strategy, limit=limit, before=before
        )
    if as_json:
        from ktrdr.cli.training_view import operation_as_json

        print_json([operation_as_json(listed.record) for listed in found])
        return
    if not found:
        err.print("No operations." if state is None and strategy is None else "No such operations.")
        return
    now = datetime.now(UTC)
    listing = table("operation", "state", "strategy", "data", ">progress", "model", ">age")
    for listed in found:
        record = listed.record
        listing.add_row(
            record.operation_id,
            _state(record, interrupted=listed.is_interrupted),
            record.strategy,
            f"{record.symbol} {record.timeframe}",
            _progress(record),
            record.model or "",
            ago(record.created_at, now),
        )
    out.print(listing)
    if len(found) == limit:
        err.print(f"Older ones: ktrdr ops list --before {found[-1].record.operation_id}", style="dim")


@app.command()
def show(context: typer.Context, operation: IdArgument, as_json: JsonOption = False) -> None:
    """Show one operation with its whole history: every attempt, every event."""
    with reporting_errors(as_json=as_json):
        story = installation_for(context).story(operation)
    record, history, waiting = story.record, story.history, story.waits_for
    interrupted = story.is_interrupted
    if as_json:
        from ktrdr.cli.training_view import operation_as_json

        entries = [
            {
                "at": entry.at,
                "kind": entry.kind.value,
                "attempt": entry.attempt,
                "agent_id": entry.agent_id,
                "message": entry.message,
            }
            for entry in history
        ]
        print_json(
            {
                **operation_as_json(record),
                "interrupted": interrupted,
                "waits_for": waiting,
                "history": entries,
            }
        )
        return
    ended = record.finished_at
    took = (ended - record.started_at).total_seconds() if ended and record.started_at else None
    out.print(
        facts(
            [
                ("operation", record.operation_id),
                ("state", _state(record, interrupted=interrupted)),
                ("strategy", record.strategy),
                ("data", f"{record.symbol} {record.timeframe}"),
                ("seed", record.seed),
                ("attempt", f"{record.attempt} of at most {record.max_attempts}"),
                ("agent", f"{record.agent_id} on {record.device}" if record.agent_id else None),
                ("repeats", record.retry_of),
                ("runs", f"{record.place}: {record.place_reason}" if record.place is not None else None),
                ("created", f"{record.created_at:%Y-%m-%d %H:%M:%S} UTC"),
                ("took", duration(took) if took is not None else None),
                ("progress", record.progress.summary() if record.progress and ended is None else None),
                ("waits for", waiting),
                ("cause", record.cause),
                ("message", record.message),
                ("model", record.model),
            ]
        ),
        soft_wrap=True,
    )
    if interrupted:
        err.print(
            "Nobody runs it now: the next `ktrdr train` or `ktrdr work` goes on with it.", style="yellow"
        )
    out.print()
    listing = table("time (UTC)", ">attempt", "what", "")
    for entry in history:
        listing.add_row(f"{entry.at:%H:%M:%S.%f}"[:-3], str(entry.attempt), entry.kind.value, entry.message)
    out.print(listing)


@app.command()
def watch(
    context: typer.Context,
    operation: Annotated[
        str | None, typer.Argument(help="Operation id, or its unique beginning or end; default: the newest.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Follow an operation until it ends, whichever process runs it; with --json, one line per change."""
    import json

    with reporting_errors(as_json=as_json):
        from ktrdr.backend.states import State
        from ktrdr.cli.training_view import TrainingView, operation_as_json, print_outcome

        installation = installation_for(context)
        with TrainingView(quiet=as_json, here=installation.here) as view:

            def changed(record: "OperationRecord") -> None:
                view.listener.on_change(record)
                if as_json:
                    out.print(json.dumps(operation_as_json(record)), markup=False, soft_wrap=True)

            record = installation.story(operation).record
            view.watching(record)
            record = asyncio.run(_follow(installation, record, view, changed))
        if not as_json:
            print_outcome(record, installation)
        if record.state is not State.COMPLETED:
            raise typer.Exit(EXIT_FAILED)


@app.command()
def logs(
    context: typer.Context,
    operation: Annotated[
        str | None, typer.Argument(help="Operation id, or its unique beginning or end; default: the newest.")
    ] = None,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on until the operation has ended.")
    ] = False,
    level: Annotated[
        str, typer.Option("--level", help="Only lines at least so severe: debug, info, warning, error.")
    ] = "debug",
    as_json: JsonOption = False,
) -> None:
    """Show what agents have logged about an operation, wherever it runs; with --json, one object a line."""
    with reporting_errors(as_json=as_json):
        from ktrdr.backend.log_reading import LEVELS
        from ktrdr.cli.log_view import LogView
        from ktrdr.errors import SettingsError

        least = next((known for known in LEVELS if known == level), None)
        if least is None:
            raise SettingsError(f"'{level}' is not a level.", fix=f"Choose one of: {', '.join(LEVELS)}.")
        view = LogView(as_json=as_json)
        installation = installation_for(context)
        operation_id = installation.story(operation).record.operation_id
        if follow:
            asyncio.run(_follow_log(installation, operation_id, view, LEVELS[LEVELS.index(least) :]))
        else:
            view.show(installation.log(operation_id, least))
        view.end()


@app.command()
def cancel(
    context: typer.Context,
    operation: IdArgument,
    reason: Annotated[str, typer.Option("--reason", "-r", help="Kept in the history.")] = "on request",
    as_json: JsonOption = False,
) -> None:
    """Cancel an operation, whichever process runs it; it never registers a model then."""
    with reporting_errors(as_json=as_json):
        cancelled = installation_for(context).cancel(operation, reason)
    before, record = cancelled.before, cancelled.after
    if as_json:
        from ktrdr.cli.training_view import operation_as_json

        print_json(operation_as_json(record))
    elif before.state.terminal:
        err.print(f"{record.operation_id} was {record.state} already; nothing to cancel.")
    else:
        err.print(f"{record.operation_id} is {record.state}.")


@app.command()
def retry(
    context: typer.Context,
    operation: IdArgument,
    seed: Annotated[
        int | None, typer.Option(min=0, max=2**63 - 1, help="Another than that of the operation.")
    ] = None,
    mode: Annotated[
        str | None,
        typer.Option(help="`local`, `host` or `auto`.", show_default="as before", metavar="MODE"),
    ] = None,
    lane: Annotated[str | None, typer.Option(help="Only host agents that serve this lane take it.")] = None,
    require_gpu: Annotated[
        bool | None,
        typer.Option("--require-gpu/--no-require-gpu", help="Whether only what has a GPU trains it."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Ask once more for what has failed or was cancelled, in the background; print the new operation's id.

    Strategy, overrides, bars and seed are those that were recorded, whatever has become of their files.
    """
    with reporting_errors(as_json=as_json):
        installation = installation_for(context)
        from ktrdr.backend.wishes import RetryWish
        from ktrdr.cli.config import parse_mode
        from ktrdr.cli.started import print_started

        wish = RetryWish(parse_mode(mode) if mode is not None else None, require_gpu, lane, seed)
        print_started(installation.retry(operation, wish), as_json=as_json)


async def _follow(
    installation: "Installation",
    record: "OperationRecord",
    view: "TrainingView",
    changed: "Callable[[OperationRecord], None]",
) -> "OperationRecord":
    async with aclosing(installation.watch(record.operation_id, view.waiting)) as records:
        async for newest in records:
            changed(newest)
            record = newest
    return record


async def _follow_log(
    installation: "Installation", operation_id: str, view: "LogView", levels: "Sequence[str]"
) -> None:
    async with aclosing(installation.follow_log(operation_id, view.waiting)) as parts:
        async for lines in parts:
            view.show([line for line in lines if line.level in levels])


def _state(record: "OperationRecord", *, interrupted: bool) -> Text:
    state = Text(record.state.value, style=_STATE_STYLES.get(record.state.value, ""))
    return state + Text(" (interrupted)", style="yellow") if interrupted else state


def _progress(record: "OperationRecord") -> str:
    if record.state.terminal or record.progress is None:
        return ""
    return f"{record.progress.fraction:.0%}"
