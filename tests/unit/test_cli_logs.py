"""`ktrdr ops logs`, over a database in which lines were recorded."""

import asyncio
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from ktrdr.cli.main import app
from ktrdr.events import LogEntry, TrainingLogged
from tests.unit.backend_cases import started

AT = datetime(2026, 3, 1, 12, 30, 15, 250_000, tzinfo=UTC)


def entry(number: int, event: str, **changes: Any) -> LogEntry:
    values = {"number": number, "at": AT, "level": "info", "source": "executor", "event": event}
    return LogEntry(**{**values, **changes})


LINES = (
    entry(1, "[3/4] Running the executor", source="agent", fields={"slot": 1}),
    entry(2, "[1/8] Loading data", fields={"rows": 3}),
    entry(3, "stage done", level="debug", fields={"stage": "Loading data"}),
    entry(41, "odd", level="warning", fields={"exception": "Traceback …\nValueError: odd"}),
)


@pytest.fixture
def operation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """An operation that has ended, whose agent has logged this."""

    async def record() -> str:
        async with started(tmp_path) as world:
            run = await world.running()
            await world.agent.say(TrainingLogged(**run.token, lines=LINES))
            await world.agent.finish(run)
            await world.pass_time(5)
            return run.request.operation_id

    monkeypatch.setenv("KTRDR_HOME", str(tmp_path / "home"))
    return asyncio.run(record())


def logs(*options: str) -> Any:
    ran = CliRunner().invoke(app, ["ops", "logs", *options])
    assert ran.exit_code == 0, ran.output
    return ran


@pytest.mark.parametrize("follow", [[], ["--follow"]], ids=["shown", "followed"])
def test_lines_are_shown_as_steps_within_steps_and_what_is_missing_is_counted(
    operation: str, follow: list[str]
) -> None:
    ran = logs(operation, *follow)
    assert ran.stdout.splitlines() == [
        "attempt 1 on agent-1",
        "12:30:15.250  [3/4] Running the executor  slot=1",
        "12:30:15.250    [1/8] Loading data  rows=3",
        '12:30:15.250    stage done  stage="Loading data"',
        "… 37 lines left out",
        "12:30:15.250  warning:   odd",
        "Traceback …",
        "ValueError: odd",
    ]
    assert "journalctl -u ktrdr-host-agent" in ran.stderr


def test_scripts_read_one_object_a_line_of_the_newest_operation(operation: str) -> None:
    lines = [json.loads(line) for line in logs("--json", "--level", "warning").stdout.splitlines()]
    assert [(line["event"], line["left_out"], line["attempt"]) for line in lines] == [("odd", 37, 1)]
    assert lines[0]["at"] == "2026-03-01T12:30:15.250000+00:00"


def test_a_level_that_is_none_is_refused(operation: str) -> None:
    ran = CliRunner().invoke(app, ["ops", "logs", operation, "--level", "loud"])
    assert ran.exit_code == 1
    assert "Choose one of: debug, info, warning, error, critical" in ran.stderr
