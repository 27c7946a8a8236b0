"""`ktrdr broker drill`: the promises, checked on the user's own broker."""

from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from ktrdr.cli.interrupts import run_until_interrupted, until_begun
from ktrdr.cli.output import (
    EXIT_CANCELLED,
    EXIT_FAILED,
    JsonOption,
    duration,
    err,
    out,
    print_json,
    print_warning,
    printable,
    reporting_errors,
    table,
)
from ktrdr.cli.settings import settings_for

if TYPE_CHECKING:
    from rich.status import Status

    from ktrdr.drill.results import Result
    from ktrdr.drill.running import Report
    from ktrdr.drill.scene import Drill
    from ktrdr.drill.scratch_broker import Server

_MARKS = {
    "passed": Text("✓", style="green"),
    "failed": Text("✗", style="bold red"),
    "unchecked": Text("?", style="yellow"),
    "skipped": Text("-", style="dim"),
    "measured": Text("·", style="cyan"),
}


def drill(
    context: typer.Context,
    url: Annotated[
        str | None,
        typer.Argument(
            help="amqp(s)://user:password@host/vhost; default: KTRDR_BROKER_URL.",
            metavar="URL",
            show_default=False,
        ),
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option("--only", help="Only this drill; may be repeated. See --list.", metavar="NAME"),
    ] = None,
    with_long: Annotated[
        bool,
        typer.Option("--long", help="Also what takes minutes, as brokers are patient."),
    ] = False,
    management: Annotated[
        str | None,
        typer.Option(
            help="http(s)://user:password@host:15672, for what AMQP does not tell: policies, and what "
            "drills of other machines left when they were killed. Better in KTRDR_MANAGEMENT_URL.",
            metavar="URL",
        ),
    ] = None,
    list_them: Annotated[bool, typer.Option("--list", help="List the drills and run none.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Check on your own broker that what ktrdr promises holds there; about a minute.

    Cuts connections, kills agents, damages and repeats messages: all of its own, under names that nobody
    else uses and that are removed after. Two small agents train for real on this machine meanwhile. What is
    yours is not touched.
    """
    with reporting_errors(as_json=as_json), until_begun():
        settings = settings_for(context, broker_url=url, management_url=management)
        from ktrdr.drill.catalog import DRILLS, chosen

        if list_them:
            _list(DRILLS, as_json=as_json)
            return
        from ktrdr.app.connecting import broker_url
        from ktrdr.drill.running import Wish, run_drills

        wish = Wish(
            broker_url(settings),
            chosen(only or ()),
            with_long=with_long or bool(only),
            inline_limit_bytes=settings.inline_limit_bytes,
            prefix_in_use=settings.broker_prefix,
            management_url=(
                settings.management_url.get_secret_value() if settings.management_url is not None else None
            ),
        )
        interrupted = False

        def on_interrupt() -> None:
            nonlocal interrupted
            interrupted = True
            err.print("Cleaning up …")

        view = _View(quiet=as_json)
        try:
            report = run_until_interrupted(
                lambda stop: run_drills(wish, stop=stop, watcher=view), on_interrupt=on_interrupt
            )
        finally:
            view.close()
    if as_json:
        print_json(_as_json(report))
    else:
        _summarize(report)
    if interrupted:
        raise typer.Exit(EXIT_CANCELLED)
    if any(result.outcome == "failed" for _, result in report.results):
        raise typer.Exit(EXIT_FAILED)


class _View:
    """Shows each drill when it has ended, and on a terminal the one that runs."""

    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet
        self._status: Status | None = None

    def connected(self, server: "Server", prefix: str) -> None:
        """Say where all this happens."""
        if not self._quiet:
            err.print(f"{server}; all names begin with {prefix}", style="dim", soft_wrap=True)

    def begun(self, drill: "Drill") -> None:
        """Show what runs."""
        if not self._quiet and err.is_terminal:
            self._status = err.status(Text(f"{drill.title} …"))
            self._status.start()

    def ended(self, drill: "Drill", result: "Result") -> None:
        """Print how it ended."""
        self.close()
        if self._quiet:
            return
        took = f"  ({duration(result.took_s)})" if result.took_s else ""
        line = Text.assemble(
            _MARKS[result.outcome.value],
            (f" {drill.title}", "bold"),
            f": {printable(result.detail)}",
            (took, "dim"),
        )
        out.print(line, soft_wrap=True)
        if result.outcome == "failed":
            out.print(Text(f"  promised: {drill.promise}"), soft_wrap=True)
        if result.outcome in ("failed", "unchecked"):
            for change in result.changes:
                out.print(Text("  change: ", style="bold") + Text(printable(change)), soft_wrap=True)

    def close(self) -> None:
        """Show nothing any more."""
        if self._status is not None:
            self._status.stop()
            self._status = None


def _summarize(report: "Report") -> None:
    from ktrdr.drill.results import Outcome

    words = [f"{count} {outcome}" for outcome in Outcome if (count := report.count(outcome))]
    err.print(", ".join(words) + ".", style="red" if report.count(Outcome.FAILED) else "green")
    if report.cleared:
        err.print(
            f"Removed what drills that were killed had left: {', '.join(report.cleared)}", soft_wrap=True
        )
    if report.left:
        print_warning(
            f"could not be deleted from the broker: {', '.join(report.left)}; the next drill on this machine "
            "tries again, or have an administrator do it"
        )


def _list(drills: "tuple[Drill, ...]", *, as_json: bool) -> None:
    if as_json:
        print_json([_described(drill) for drill in drills])
        return
    rows = table("name", "what happens", "what is promised")
    for each in drills:
        rows.add_row(each.name, each.title, each.promise + (" (with --long)" if each.is_long else ""))
    out.print(rows)


def _as_json(report: "Report") -> dict[str, object]:
    return {
        "broker": str(report.server),
        "prefix": report.prefix,
        "drills": [
            {
                **_described(each),
                "outcome": result.outcome.value,
                "detail": result.detail,
                "changes": list(result.changes),
                "figures": dict(result.figures),
                "took_s": round(result.took_s, 3),
            }
            for each, result in report.results
        ],
        "cleared": list(report.cleared),
        "left": list(report.left),
    }


def _described(each: "Drill") -> dict[str, object]:
    return {"name": each.name, "title": each.title, "promise": each.promise, "long": each.is_long}
