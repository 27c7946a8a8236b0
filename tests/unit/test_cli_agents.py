"""`ktrdr agents`, over a database in which agents were recorded."""

import asyncio
import json
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from ktrdr.backend.presences import Presences
from ktrdr.backend.store import OperationStore
from ktrdr.cli.main import app
from ktrdr.clock import SystemClock
from ktrdr.events import AgentPresence, Envelope, RunningAttempt
from tests.unit.backend_cases import inline, settings_in

HOUR = timedelta(hours=1)
Say = Callable[..., None]


class Shifted(SystemClock):
    """The system's clock, some time ago."""

    def __init__(self, by: timedelta) -> None:
        self._by = by

    def now(self) -> Any:
        return super().now() - self._by


@pytest.fixture
def say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Say:
    """A function that records what an agent said, and when."""
    settings = settings_in(tmp_path)
    monkeypatch.setenv("KTRDR_HOME", str(settings.home))

    async def record(agent_id: str, ago: timedelta, **fields: Any) -> None:
        values = {"state": "ready", "device": "cpu", "lanes": ("any",), "slots_total": 1, "slots_busy": 0}
        event = AgentPresence(agent_id=agent_id, **values | fields)
        clock = Shifted(ago)
        with OperationStore.open(settings) as store:
            presences = Presences(store, clock=clock, offload=inline, lease_s=30.0)
            presences.take(event, Envelope(event, "id", f"{agent_id}@box", clock.now()))
            await presences.flush()

    def run(agent_id: str, *, ago: timedelta = timedelta(), **fields: Any) -> None:
        asyncio.run(record(agent_id, ago, **fields))

    return run


def agents(*options: str) -> Any:
    ran = CliRunner().invoke(app, ["agents", *options])
    assert ran.exit_code == 0, ran.output
    return json.loads(ran.stdout) if "--json" in options else ran


def test_an_agent_is_listed_with_what_it_is_and_runs(say: Say) -> None:
    held = RunningAttempt(operation_id="op-1", attempt=2, claim_id="claim-1")
    say("gpu-box", device="cuda", device_name="RTX", lanes=("gpu", "any"), slots_busy=1, running=(held,))
    (agent,) = agents("--json")
    assert (agent["agent_id"], agent["host"], agent["status"]) == ("gpu-box", "box", "busy")
    assert (agent["device"], agent["lanes"]) == ("cuda", ["gpu", "any"])
    assert (agent["slots_busy"], agent["slots_total"]) == (1, 1)
    assert [(run["operation_id"], run["attempt"]) for run in agent["running"]] == [("op-1", 2)]
    shown = agents().stdout
    for text in ("gpu-box", "busy", "cuda (RTX)", "gpu, any", "1/1", "op-1 · attempt 2"):
        assert text in shown


def test_one_that_holds_attempts_and_is_not_heard_is_detached(say: Say) -> None:
    held = RunningAttempt(operation_id="op-1", attempt=1, claim_id="claim-1")
    say("away", ago=HOUR, running=(held,), slots_busy=1)
    assert [agent["status"] for agent in agents("--json")] == ["detached"]
    assert "1 h" in agents().stdout


def test_who_has_gone_is_only_in_the_list_of_all(say: Say) -> None:
    say("idle")
    say("silent", ago=HOUR)
    say("stopped", state="stopped")
    assert [agent["agent_id"] for agent in agents("--json")] == ["idle"]
    assert {agent["agent_id"]: agent["status"] for agent in agents("--all", "--json")} == {
        "idle": "ready",
        "silent": "silent",
        "stopped": "stopped",
    }


def test_without_agents_it_says_how_to_get_one(say: Say) -> None:
    assert "No agents. Start one: ktrdr agent" in agents().stderr
    say("stopped", state="stopped")
    assert "No agents. 1 stopped or fell silent: ktrdr agents --all" in agents().stderr
    assert agents("--json") == []


def test_it_says_when_nobody_hears_the_agents(say: Say) -> None:
    say("idle")
    assert "no `ktrdr serve` runs here" in agents().stderr


def test_one_that_speaks_another_protocol_is_pointed_out(say: Say) -> None:
    say("new", protocol_version=99)
    assert "new speaks protocol 99" in agents().stderr
