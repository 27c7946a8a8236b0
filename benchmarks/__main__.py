"""``python -m benchmarks [NAME …]``: run benchmarks, print a table, keep the figures as JSON."""

import json
import os
import sys
from dataclasses import asdict
from importlib import import_module
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.measure import Result
from ktrdr.logs import configure_logging

_ALL = (
    *("executor", "epochs", "features", "event_path", "start_up"),
    *("publishing", "accepting", "jobs", "scaling", "progress", "cancelling", "large_model", "presence"),
    *("posting", "watching", "health", "listing", "memory"),
)
_RESULTS = Path(__file__).parent / "results" / "latest.json"


def main(names: list[str]) -> int:
    console = Console()
    configure_logging("error")
    unknown = set(names) - set(_ALL)
    if unknown:
        console.print(f"Unknown: {', '.join(sorted(unknown))}. There are: {', '.join(_ALL)}.")
        return 2
    results: list[Result] = []
    broken: list[str] = []
    for name in names or _ALL:
        try:
            with console.status(f"Measuring {name} …"):
                results += import_module(f"benchmarks.{name}").measure()
        except Exception:
            # The others are worth having.
            console.print_exception()
            broken.append(name)
    machine = f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}"
    table = Table(
        title=f"Medians; ratio = ours / baseline, both in this run; {machine}", title_justify="left"
    )
    for column in ("what", "seconds", "baseline", "its seconds", "ratio", "target", ""):
        table.add_column(column, justify="right" if column in ("seconds", "its seconds", "ratio") else "left")
    for result in results:
        table.add_row(
            result.what + (f"\n[dim]{result.note}[/dim]" if result.note else ""),
            f"{result.seconds:.4g}",
            result.baseline,
            f"{result.baseline_seconds:.4g}",
            f"{result.ratio:.3g}",
            result.target,
            "[green]met[/green]" if result.met else "[red]missed[/red]",
        )
    console.print(table)
    _RESULTS.parent.mkdir(exist_ok=True)
    _RESULTS.write_text(json.dumps([{**asdict(r), "ratio": r.ratio} for r in results], indent=2) + "\n")
    console.print(f"Kept in {_RESULTS}.")
    if broken:
        console.print(f"[red]Broken: {', '.join(broken)}.[/red]")
    return 0 if not broken and all(result.met for result in results) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
