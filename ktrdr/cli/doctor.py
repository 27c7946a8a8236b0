"""`ktrdr doctor`."""

from dataclasses import asdict

import typer
from rich.text import Text

from ktrdr.cli.output import EXIT_FAILED, JsonOption, err, out, print_json, reporting_errors
from ktrdr.cli.settings import settings_for

_MARKS = {
    "ok": Text("✓", style="green"),
    "warning": Text("!", style="yellow"),
    "problem": Text("✗", style="red"),
}


def doctor(context: typer.Context, as_json: JsonOption = False) -> None:
    """Say what is installed, which devices, database and broker would be used, and what to fix."""
    with reporting_errors(as_json=as_json):
        settings = settings_for(context)
        from ktrdr.doctor import Health, examine

        findings = []
        for finding in examine(settings):
            findings.append(finding)
            if not as_json:
                out.print(
                    _MARKS[finding.health.value] + Text(f" {finding.subject:<13} {finding.detail}"),
                    soft_wrap=True,
                )
                if finding.fix:
                    out.print(Text(f"  {'':<13} fix: {finding.fix}", style="bold"), soft_wrap=True)
    problems = sum(finding.health is Health.PROBLEM for finding in findings)
    if as_json:
        print_json([asdict(finding) for finding in findings])
    elif problems:
        err.print(f"{problems} problem{'s' if problems != 1 else ''} to fix.", style="red")
    else:
        err.print("Everything that training needs is there.", style="green")
    if problems:
        raise typer.Exit(EXIT_FAILED)
