"""`ktrdr strategies`: what can be trained."""

from typing import Annotated

import typer
from rich.text import Text

from ktrdr.cli.output import EXIT_FAILED, JsonOption, err, out, print_json, reporting_errors, table
from ktrdr.cli.settings import settings_for

app = typer.Typer(help="Strategies: list, validate.", no_args_is_help=True)


@app.command("list")
def list_strategies(context: typer.Context, as_json: JsonOption = False) -> None:
    """List the strategies in the strategies directory, and which are trained."""
    with reporting_errors(as_json=as_json):
        settings = settings_for(context)
        from ktrdr.backend.store import OperationStore
        from ktrdr.errors import StrategyError
        from ktrdr.strategy import StrategyDirectory, load_strategy

        versions: dict[str, int] = {}
        if OperationStore.exists(settings):
            with OperationStore.open(settings) as store:
                versions = store.models.trained_strategies()
        rows: list[dict[str, object]] = []
        for path in StrategyDirectory(settings.strategies_dir).list():
            row: dict[str, object] = {"name": path.stem, "path": str(path)}
            try:
                strategy = load_strategy(path).strategy
            except StrategyError as error:
                row |= {"status": "invalid", "problems": len(error.problems)}
            else:
                count = versions.get(strategy.name, 0)
                row |= {
                    "status": "trained" if count else "untrained",
                    "versions": count,
                    "symbol": strategy.symbol,
                    "timeframes": list(strategy.timeframes),
                    "description": strategy.description,
                }
            rows.append(row)
    if as_json:
        print_json(rows)
        return
    if not rows:
        err.print(f"No strategies in {settings.strategies_dir}.")
        return
    listing = table("strategy", "status", ">versions", "data", "description")
    styles = {"trained": "green", "untrained": "default", "invalid": "red"}
    for row in rows:
        status = str(row["status"])
        timeframes = row.get("timeframes", [])
        data = (
            f"{row['symbol']} {', '.join(timeframes)}" if isinstance(timeframes, list) and timeframes else ""
        )
        problems = f"{row.get('problems')} problems: ktrdr strategies validate {row['path']}"
        description = problems if status == "invalid" else str(row.get("description") or "")
        listing.add_row(
            str(row["name"]),
            Text(status, style=styles[status]),
            str(row.get("versions", "")),
            data,
            " ".join(description.split()),
        )
    out.print(listing)


@app.command()
def validate(
    context: typer.Context,
    strategies: Annotated[list[str], typer.Argument(help="Files, or names from `ktrdr strategies list`.")],
    strict: Annotated[bool, typer.Option("--strict", help="Treat warnings as errors.")] = False,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", help="As for `ktrdr train`.", metavar="PATH=VALUE")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Check strategies and report every problem with its line; exit status 1 if there is one."""
    with reporting_errors(as_json=as_json):
        settings = settings_for(context)
        from ktrdr.cli.output import print_error, problem_as_json
        from ktrdr.cli.train import parse_overrides
        from ktrdr.errors import StrategyError
        from ktrdr.strategy import StrategyDirectory, load_strategy

        directory = StrategyDirectory(settings.strategies_dir)
        changes = parse_overrides(overrides or [])
        results: list[dict[str, object]] = []
        for name in strategies:
            path = directory.find(name)
            try:
                parsed = load_strategy(path, changes, strict=strict)
            except StrategyError as error:
                results.append(
                    {
                        "path": str(path),
                        "valid": False,
                        "problems": [problem_as_json(problem) for problem in error.problems],
                    }
                )
                if not as_json:
                    print_error(error)
                continue
            results.append(
                {
                    "path": str(path),
                    "valid": True,
                    "features": list(parsed.strategy.feature_plan.feature_ids),
                    "warnings": [problem_as_json(warning) for warning in parsed.warnings],
                }
            )
            if not as_json:
                for warning in parsed.warnings:
                    err.print(
                        Text("warning: ", style="bold yellow") + Text(warning.describe(str(path))),
                        soft_wrap=True,
                    )
                count = len(parsed.strategy.feature_plan.columns)
                out.print(Text("✓ ", style="green") + Text(f"{path}: valid, {count} features"))
    if as_json:
        print_json(results)
    if not all(result["valid"] for result in results):
        raise typer.Exit(EXIT_FAILED)
