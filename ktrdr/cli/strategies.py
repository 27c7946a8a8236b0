"""`ktrdr strategies`: what can be trained, whether it is right, and what it means."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from ktrdr.cli import leakage
from ktrdr.cli.output import (
    EXIT_FAILED,
    JsonOption,
    err,
    out,
    print_json,
    print_warning,
    reporting_errors,
    table,
)
from ktrdr.cli.settings import installation_for, settings_for

if TYPE_CHECKING:
    from ktrdr.client.port import StrategyEntry

app = typer.Typer(help="Strategies: list, validate, explain, check-leakage, schema.", no_args_is_help=True)


app.command("check-leakage")(leakage.check_leakage)


@app.command("list")
def list_strategies(context: typer.Context, as_json: JsonOption = False) -> None:
    """List the strategies in the strategies directory, and which are trained."""
    with reporting_errors(as_json=as_json):
        found = installation_for(context).strategies()
    if as_json:
        print_json([_as_json(entry) for entry in found])
        return
    if not found:
        err.print("There are no strategies.")
        return
    listing = table("strategy", "status", ">versions", "data", "description")
    styles = {"trained": "green", "untrained": "default", "invalid": "red"}
    for entry in found:
        problems = f"{entry.problems} problems: ktrdr strategies validate {entry.name}"
        is_invalid = entry.status == "invalid"
        listing.add_row(
            entry.name,
            Text(entry.status, style=styles[entry.status]),
            "" if is_invalid else str(entry.versions),
            f"{entry.symbol} {', '.join(entry.timeframes)}" if entry.timeframes else "",
            problems if is_invalid else " ".join((entry.description or "").split()),
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
        from ktrdr.cli.output import print_error, problem_as_json
        from ktrdr.cli.train import parse_overrides
        from ktrdr.errors import StrategyError

        installation = installation_for(context)
        changes = parse_overrides(overrides or [])
        results: list[dict[str, object]] = []
        for name in strategies:
            found = installation.check(name, changes, strict=strict)
            result: dict[str, object] = {"path": found.source, "valid": not found.problems}
            if found.problems:
                result["problems"] = [problem_as_json(problem) for problem in found.problems]
                if not as_json:
                    print_error(StrategyError(found.source, found.problems))
            else:
                result["features"] = list(found.features)
                result["warnings"] = [problem_as_json(warning) for warning in found.warnings]
                if not as_json:
                    for warning in found.warnings:
                        print_warning(warning.describe(found.source))
                    out.print(
                        Text("✓ ", style="green") + Text(f"{found.source}: valid, {found.columns} features")
                    )
            results.append(result)
    if as_json:
        print_json(results)
    if not all(result["valid"] for result in results):
        raise typer.Exit(EXIT_FAILED)


@app.command()
def explain(
    context: typer.Context,
    strategy: Annotated[str, typer.Argument(help="A file, or a name from `ktrdr strategies list`.")],
    overrides: Annotated[
        list[str] | None, typer.Option("--set", help="As for `ktrdr train`.", metavar="PATH=VALUE")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Say what would be trained: bars, features with their formulas, label, network, training, split."""
    with reporting_errors(as_json=as_json):
        from dataclasses import asdict

        from ktrdr.cli.explanation_view import print_explanation
        from ktrdr.cli.train import parse_overrides

        explanation = installation_for(context).explain(strategy, parse_overrides(overrides or []))
    if as_json:
        print_json(asdict(explanation))
    else:
        print_explanation(explanation, strategy)


@app.command()
def schema(
    context: typer.Context,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write it there instead of printing it.")
    ] = None,
) -> None:
    """Print the JSON Schema of strategy files, by which an editor completes and checks them.

    Plug-ins that are installed here are in it.
    """
    with reporting_errors():
        settings_for(context)
        from ktrdr.errors import SettingsError
        from ktrdr.language.schema import as_text, language_schema

        text = as_text(language_schema())
        if output is None:
            typer.echo(text, nl=False)
            return
        try:
            output.write_text(text, encoding="utf-8")
        except OSError as error:
            raise SettingsError(
                f"{output} cannot be written: {error.strerror}.", fix="Name another file."
            ) from error


def _as_json(entry: "StrategyEntry") -> dict[str, object]:
    named: dict[str, object] = {"name": entry.name, "path": entry.path, "status": entry.status}
    if entry.status == "invalid":
        return {**named, "problems": entry.problems}
    return {
        **named,
        "versions": entry.versions,
        "symbol": entry.symbol,
        "timeframes": list(entry.timeframes),
        "description": entry.description,
    }
