"""What every command prints with: a console for people, JSON for scripts, errors with their fix."""

import json
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Annotated, NoReturn

import typer
from rich.console import Console, ConsoleOptions, JustifyMethod, RenderableType
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from ktrdr.errors import KtrdrError, OperationCancelledError, Problem, StrategyError

_OBEYED = {
    **dict.fromkeys([*range(0x20), *range(0x7F, 0xA0)], "�"),  # ESC is the beginning of most
    **dict.fromkeys([*range(0x202A, 0x202F), *range(0x2066, 0x206A)], "�"),  # they turn what follows around
    ord("\n"): "\n",
    ord("\t"): "\t",
}


class PlainConsole(Console):
    """A console whose terminal obeys nothing that is in the texts: agents and files may be anybody's."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """See `Console.render`."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=segment.text.translate(_OBEYED))


# Files and pipes have no width: lines there are as long as they are.
_PIPE_WIDTH = 200
out = PlainConsole(highlight=False, width=None if sys.stdout.isatty() else _PIPE_WIDTH)
"""For results: standard output."""
err = PlainConsole(stderr=True, highlight=False, width=None if sys.stderr.isatty() else _PIPE_WIDTH)
"""For progress, warnings and errors: standard error."""

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]

EXIT_FAILED = 1
EXIT_CANCELLED = 130


def print_json(value: object) -> None:
    """Print a value as JSON; datetimes as ISO 8601, paths as strings."""
    sys.stdout.write(json.dumps(value, indent=2, default=_plain, ensure_ascii=False, allow_nan=False) + "\n")


def _plain(value: object) -> object:
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat()
    return str(value)


def print_error(error: KtrdrError) -> None:
    """Print what happened and what to do about it."""
    if isinstance(error, StrategyError):
        count = len(error.problems)
        err.print(
            Text(f"error: {count} problem{'s' if count != 1 else ''} in the strategy", style="bold red")
        )
        for problem in error.problems:
            err.print(Text("  " + problem.describe(error.source)), soft_wrap=True)
    else:
        err.print(Text("error: ", style="bold red") + Text(error.message, style="default"), soft_wrap=True)
    if error.fix:
        err.print(Text("  fix: ", style="bold") + Text(error.fix), soft_wrap=True)


def print_warning(message: str) -> None:
    """Print what deserves attention but stops nothing."""
    err.print(Text("warning: ", style="bold yellow") + Text(message), soft_wrap=True)


@contextmanager
def reporting_errors(*, as_json: bool = False) -> Iterator[None]:
    """Turn a `KtrdrError` into a message, or JSON ``{"error": …}``, and an exit status as `fail` does."""
    try:
        yield
    except KtrdrError as error:
        fail(error, as_json=as_json)
    except BrokenPipeError:
        # The reader of our output has gone, as `head` does; Python must not complain at exit either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(EXIT_FAILED) from None


def fail(error: KtrdrError, *, as_json: bool = False) -> NoReturn:
    """Report an error and exit with status 1; a cancellation is none, and has a status of its own."""
    if as_json:
        described: dict[str, object] = {
            "type": type(error).__name__,
            "message": error.message,
            "fix": error.fix,
        }
        if isinstance(error, StrategyError):
            described["problems"] = [problem_as_json(problem) for problem in error.problems]
        print_json({"error": described})
    elif isinstance(error, OperationCancelledError):
        err.print(Text(error.message, style="yellow"))
    else:
        print_error(error)
    raise typer.Exit(EXIT_CANCELLED if isinstance(error, OperationCancelledError) else EXIT_FAILED)


def problem_as_json(problem: Problem) -> dict[str, object]:
    """Return a problem of a strategy for ``--json``."""
    return {
        "path": problem.path,
        "message": problem.message,
        "line": problem.line,
        "column": problem.column,
        "suggestion": problem.suggestion,
    }


def table(*columns: str, title: str | None = None) -> Table:
    """Return an empty table in the house style; a column named with ``>`` in front is right-aligned."""
    result = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for number, column in enumerate(columns):
        right = column.startswith(">")
        justify: JustifyMethod = "right" if right else "left"
        # The first column names the row: it is what one copies, so it stays whole.
        result.add_column(column.lstrip(">"), justify=justify, overflow="fold", no_wrap=right or number == 0)
    return result


def facts(rows: Sequence[tuple[str, object]]) -> Table:
    """Return a two-column table of names and values; rows whose value is None are left out."""
    result = Table(box=None, show_header=False, pad_edge=False)
    result.add_column(style="bold", no_wrap=True)
    result.add_column(overflow="fold")
    for name, value in rows:
        if value is not None:
            result.add_row(name, value if isinstance(value, Text) else str(value))
    return result


def printable(text: str) -> str:
    """Return text on one line, with what a terminal would obey or hide escaped, as in ``\\x1b``."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def ago(moment: datetime | None, now: datetime) -> str:
    """Return how long ago that was: ``12 s``, ``3 min``, ``5 h``, ``2 d``."""
    if moment is None:
        return ""
    return duration(max((now - moment).total_seconds(), 0.0))


def duration(seconds: float | None) -> str:
    """Return a duration with one or two units: ``0.4 s``, ``12 s``, ``3 min 05 s``, ``5 h 20 min``."""
    if seconds is None:
        return ""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes:02d} min"
    return f"{hours // 24} d {hours % 24} h"


def size(count: int) -> str:
    """Return a number of bytes for people: ``812 B``, ``14.2 kB``, ``3.1 MB``."""
    amount = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if amount < 1000 or unit == "GB":
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1000
    raise AssertionError("the loop returns at GB")
