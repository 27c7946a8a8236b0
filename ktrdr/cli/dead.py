"""`ktrdr dead`: messages that could not be read or handled."""

import asyncio
import sys
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer
from rich.text import Text

from ktrdr.cli.output import EXIT_FAILED, JsonOption, err, out, print_json, printable, reporting_errors
from ktrdr.cli.settings import BrokerOption, PrefixOption, settings_for

if TYPE_CHECKING:
    from ktrdr.bus.dead_letter_box import Choice, DeadLetter, DeadLetterBox, Outcome
    from ktrdr.settings import Settings

app = typer.Typer(help="Dead letters: what could not be read or handled, and why.", no_args_is_help=True)

IdsArgument = Annotated[
    list[str] | None, typer.Argument(help="Ids, or the unique beginning or end of each.", metavar="ID…")
]
AllOption = Annotated[bool, typer.Option("--all", help="All of them, instead of ids.")]
ReasonOption = Annotated[
    str | None, typer.Option("--reason", "-r", help="Only those whose reason contains this.", metavar="TEXT")
]
LimitOption = Annotated[
    int, typer.Option("--limit", "-l", min=1, max=100_000, help="Look at so many, the oldest first.")
]

_LIMIT = 1000
T = TypeVar("T")


@app.command("list")
def list_letters(
    context: typer.Context,
    reason: ReasonOption = None,
    limit: LimitOption = _LIMIT,
    broker: BrokerOption = None,
    prefix: PrefixOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the dead letters, oldest first; nothing is taken away."""
    with reporting_errors(as_json=as_json):
        settings = settings_for(context, broker_url=broker, broker_prefix=prefix)
        from ktrdr.bus.dead_letter_box import every, with_reason
        from ktrdr.cli.dead_view import letter_as_json, print_letter

        found = _with_box(settings, lambda box: box.look(limit))
        letters = (with_reason(reason) if reason else every)(found)
    if as_json:
        print_json([letter_as_json(letter) for letter in letters])
        return
    now = datetime.now(UTC)
    for letter in letters:
        print_letter(letter, now)
    if not letters:
        err.print("No dead letters." if reason is None or not found else "No dead letters of that reason.")
    else:
        err.print(
            f"{_counted(letters)}. Look: ktrdr dead show ID. Put back: ktrdr dead redrive ID. "
            "Throw away: ktrdr dead discard ID.",
            style="dim",
            soft_wrap=True,
        )
    if len(found) == limit:
        err.print(f"There may be more: these are of the oldest {limit}; see --limit.", style="yellow")


@app.command()
def show(
    context: typer.Context,
    letter: Annotated[str, typer.Argument(help="Id, or its unique beginning or end.", metavar="ID")],
    limit: LimitOption = _LIMIT,
    broker: BrokerOption = None,
    prefix: PrefixOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show a dead letter: its event, or why that cannot be read and how its body begins."""
    with reporting_errors(as_json=as_json):
        settings = settings_for(context, broker_url=broker, broker_prefix=prefix)
        from ktrdr.bus.dead_letter_box import with_ids
        from ktrdr.cli.dead_view import print_whole_letter, whole_letter_as_json

        letters = with_ids([letter])(_with_box(settings, lambda box: box.look(limit)))
    if as_json:
        print_json([whole_letter_as_json(each) for each in letters])
        return
    for number, each in enumerate(letters):
        if number:
            out.print()
        print_whole_letter(each, datetime.now(UTC))


@app.command()
def redrive(
    context: typer.Context,
    ids: IdsArgument = None,
    everything: AllOption = False,
    reason: ReasonOption = None,
    limit: LimitOption = _LIMIT,
    broker: BrokerOption = None,
    prefix: PrefixOption = None,
    as_json: JsonOption = False,
) -> None:
    """Put dead letters back to the queues where they died, under the same ids.

    Do it when what they died of is mended. A letter leaves the box only when its queue has it for sure.
    """
    with reporting_errors(as_json=as_json):
        settings = settings_for(context, broker_url=broker, broker_prefix=prefix)
        choice = _choice(ids, everything=everything, reason=reason)
        outcomes = _with_box(settings, lambda box: box.redrive(choice, limit))
    _report(outcomes, "put back", as_json=as_json)


@app.command()
def discard(
    context: typer.Context,
    ids: IdsArgument = None,
    everything: AllOption = False,
    reason: ReasonOption = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    limit: LimitOption = _LIMIT,
    broker: BrokerOption = None,
    prefix: PrefixOption = None,
    as_json: JsonOption = False,
) -> None:
    """Throw dead letters away, for ever; asks first."""
    with reporting_errors(as_json=as_json):
        settings = settings_for(context, broker_url=broker, broker_prefix=prefix)
        from ktrdr.bus.dead_letter_box import with_ids

        choice = _choice(ids, everything=everything, reason=reason)
        if not yes:
            # Held while somebody thinks about it, the box would look empty to others.
            letters = choice(_with_box(settings, lambda box: box.look(limit)))
            if letters:
                _confirm(letters)
            choice = with_ids([letter.id for letter in letters])
        outcomes = _with_box(settings, lambda box: box.discard(choice, limit))
    _report(outcomes, "thrown away", as_json=as_json)


def _with_box(settings: "Settings", action: "Callable[[DeadLetterBox], Awaitable[T]]") -> T:
    from ktrdr.app.operating import dead_letter_box

    async def run() -> T:
        async with dead_letter_box(settings) as box:
            return await action(box)

    return asyncio.run(run())


def _choice(ids: Sequence[str] | None, *, everything: bool, reason: str | None) -> "Choice":
    from ktrdr.bus.dead_letter_box import every, with_ids, with_reason
    from ktrdr.errors import SettingsError

    if bool(ids) == everything or (ids and reason):
        raise SettingsError(
            "It is not clear which dead letters are meant.",
            fix="Name ids, or --all, or --all with --reason TEXT.",
        )
    if ids:
        return with_ids(ids)
    return with_reason(reason) if reason else every


def _confirm(letters: "Sequence[DeadLetter]") -> None:
    from ktrdr.cli.dead_view import print_letter
    from ktrdr.errors import SettingsError

    if not can_ask():
        raise SettingsError("Nobody can be asked whether to throw them away.", fix="Say --yes.")
    now = datetime.now(UTC)
    for letter in letters:
        print_letter(letter, now)
    typer.confirm(f"Throw {_counted(letters)} away, for ever?", abort=True, err=True)


def can_ask() -> bool:
    """Return whether somebody is there to answer."""
    return sys.stdin.isatty()


def _report(outcomes: "Sequence[Outcome]", done: str, *, as_json: bool) -> None:
    from ktrdr.bus.dead_letter_box import Fate
    from ktrdr.cli.dead_view import outcome_as_json

    kept = [outcome for outcome in outcomes if outcome.fate is Fate.KEPT]
    if as_json:
        print_json([outcome_as_json(outcome) for outcome in outcomes])
    else:
        for outcome in outcomes:
            letter = outcome.letter
            if outcome.fate is Fate.KEPT:
                line = Text(f"✗ {letter.id} stays: {printable(outcome.problem or '')}", style="red")
            else:
                where = f" to {letter.from_queue}" if outcome.fate is Fate.REDRIVEN else ""
                line = Text(printable(f"✓ {letter.id} {done}{where}"), style="green")
            out.print(line, soft_wrap=True)
        err.print(
            f"{len(outcomes) - len(kept)} {done}, {len(kept)} kept." if outcomes else "No dead letters."
        )
    if kept:
        raise typer.Exit(EXIT_FAILED)


def _counted(letters: Sequence[object]) -> str:
    return f"{len(letters)} dead letter{'s' if len(letters) != 1 else ''}"
