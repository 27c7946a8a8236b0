"""`ktrdr strategies check-leakage`."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from ktrdr.cli.output import EXIT_FAILED, JsonOption, err, out, print_json, reporting_errors
from ktrdr.cli.settings import DataOption, settings_for

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from ktrdr.language.leakage import LeakCheck
    from ktrdr.strategy import ParsedStrategy

_BARS = 4000
"""So many are tried by default, the newest: a leak shows on any."""


def check_leakage(
    context: typer.Context,
    strategy: Annotated[str, typer.Argument(help="A file, or a name from `ktrdr strategies list`.")],
    data: DataOption = None,
    bars: Annotated[
        int, typer.Option(min=100, help="Try it on so many of the newest bars, or as many as it needs.")
    ] = _BARS,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", help="As for `ktrdr train`.", metavar="PATH=VALUE")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Try whether anything of a strategy looks into the future: indicators, memberships, scaling, labels.

    Each is computed again without the bars after some bar, and with made-up ones instead: nothing up to there
    may change. Exit status 1 if something does; it names the feature, the bar and both values. Likewise if a
    part breaks its contract, as one that has another warm-up than it declares.
    """
    checks: list[LeakCheck] = []
    with reporting_errors(as_json=as_json):
        settings = settings_for(context, is_elsewhere=True, data_dir=data)
        from ktrdr.cli.train import parse_overrides
        from ktrdr.strategy import StrategyDirectory, load_strategy

        path = StrategyDirectory(settings.strategies_dir).find(strategy)
        parsed = load_strategy(path, parse_overrides(overrides or []))
        for check in _checks(parsed, settings.data_dir, bars):
            checks.append(check)
            if not as_json:
                _print(check)
    leaks = sum(len(check.leaks) for check in checks)
    faults = sum(len(check.faults) for check in checks)
    if as_json:
        found = [asdict(check) for check in checks]
        print_json({"leaks": leaks, "faults": faults, "checks": found})
    elif not leaks and not faults:
        err.print(f"Nothing of {parsed.name} looks into the future.", style="green")
    else:
        counts = ((leaks, "value", "known too early"), (faults, "contract", "broken"))
        said = [f"{count} {what}{'s' if count != 1 else ''} {how}" for count, what, how in counts if count]
        err.print(f"{', '.join(said)}.", style="red")
    if leaks or faults:
        raise typer.Exit(EXIT_FAILED)


def _checks(parsed: "ParsedStrategy", data_dir: "Path", bars: int) -> "Iterator[LeakCheck]":
    from ktrdr.language.explanation import explain
    from ktrdr.language.leakage import check_leakage
    from ktrdr.market.context import read_context
    from ktrdr.market.directory import BarDirectory

    strategy = parsed.strategy
    directory = BarDirectory(data_dir)
    # One symbol will do: what is computed of each is the same.
    symbol = strategy.symbols[0]
    tables = {
        timeframe: directory.load(symbol, timeframe, strategy.start, strategy.end)
        for timeframe in strategy.timeframes
    }
    base = tables[strategy.base_timeframe]
    needed = 2 * explain(parsed).bars.at_least
    first = base.index[-min(len(base), max(bars, needed))]
    beside = {series.source_id: series.table for series in read_context(strategy.context, data_dir)}
    recent = {timeframe: table[table.index >= first] for timeframe, table in tables.items()}
    return check_leakage(strategy, recent, beside, _go_on)


def _go_on() -> None:
    """Ctrl-C ends it wherever it is."""


def _print(check: "LeakCheck") -> None:
    mark = Text("✗ ", style="red") if check.leaks or check.faults else Text("✓ ", style="green")
    out.print(mark + Text(f"{check.kind:<14}{check.subject}"), soft_wrap=True)
    for fault in check.faults:
        out.print(Text(f"  {fault}"), soft_wrap=True)
    for leak in check.leaks:
        out.print(Text(f"  {leak.feature}, bar of {leak.time}: {leak.message}"), soft_wrap=True)
