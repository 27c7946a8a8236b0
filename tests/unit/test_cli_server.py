"""Every command says the same, whether it has the installation itself or asks its server."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from ktrdr.app.submitting import submit_to_hosts
from ktrdr.backend.states import State
from ktrdr.backend.store import OperationStore
from ktrdr.backend.tables import audit_log
from ktrdr.backend.tokens import Role
from ktrdr.backend.wishes import TrainingWish
from ktrdr.cli.training_view import TrainingView
from ktrdr.events import FailureCause, TrainingLogged
from ktrdr.events.log_lines import LogEntry
from ktrdr.events.message import Message
from tests.unit.api_cases import Api, cancelled
from tests.unit.backend_cases import PATIENCE_S
from tests.unit.served_cases import Said, ServedApi, ktrdr, served_in_thread

REPOSITORY = Path(__file__).parents[2]
MOMENTUM = REPOSITORY / "strategies" / "eurusd_momentum.yaml"
LINE = LogEntry(
    number=1, at=datetime(2026, 1, 2, tzinfo=UTC), level="info", source="executor", event="[1/8] Loading data"
)
PLACES = ("path", "report", "files")


@dataclass(frozen=True)
class World:
    """An installation with operations of several kinds, here and as it is seen from elsewhere."""

    served: ServedApi
    here: dict[str, str]
    elsewhere: dict[str, str]
    completed: str
    failed: str


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    directory = tmp_path_factory.mktemp("served")
    with served_in_thread(directory / "there") as served:
        api = served.api

        async def live() -> tuple[str, str]:
            completed = await api.submitted()
            run = await api.agent.take()
            await api.agent.say(TrainingLogged(**run.token, lines=(LINE,)))
            await api.agent.finish(run)
            await api.until(completed, State.COMPLETED)
            failed = await api.submitted()
            await api.agent.fail(await api.agent.take(), FailureCause.STRATEGY_ERROR)
            await api.until(failed, State.FAILED)
            return completed, failed

        completed, failed = served.do(live())
        yield World(served, served.variables(), served.variables(directory / "elsewhere"), completed, failed)


def both(world: World, *arguments: str) -> tuple[Said, Said]:
    return ktrdr(*arguments, variables=world.here), ktrdr(*arguments, variables=world.elsewhere)


@pytest.mark.parametrize(
    "command",
    [
        "ops list",
        "ops show COMPLETED",
        "ops show FAILED",
        "ops show op-",
        "ops show ../models",
        "ops cancel ..",
        "models show ../operations",
        "ops watch FAILED",
        "ops logs COMPLETED --follow",
        "ops cancel COMPLETED",
        "ops retry COMPLETED",
        "ops retry FAILED",
        "ops retry unheard-of",
        "models show unheard-of",
        "models verify",
        "strategies validate STRATEGY",
        "strategies validate STRATEGY --set training.epoch=3",
        "strategies explain STRATEGY",
        "strategies explain STRATEGY --set training.epoch=3",
        "agents --all",
        "config get",
        "train STRATEGY --set training.epoch=3",
        "train STRATEGY --mode local --lane gpu",
        "train STRATEGY --lane a/b",
        "ops retry FAILED --lane a/b",
        "ops list --state failed --limit 1 --json",
        "ops list --state unheard-of --json",
        "ops list --before op-unheard-of --json",
        "ops show COMPLETED --json",
        "ops watch FAILED --json",
        "ops logs COMPLETED --json",
        "ops cancel COMPLETED --json",
        "ops retry FAILED --mode nowhere --json",
        "models list --strategy unheard-of --json",
        "models verify unheard-of --json",
        "strategies validate STRATEGY --json",
        "strategies validate no-such-file.yaml --set nonsense --json",
        "strategies explain STRATEGY --set training.epochs=3 --json",
        "agents --all --json",
        "train STRATEGY --start 1990-01-01 --end 1990-02-01 --json",
        "train STRATEGY --require-gpu --mode local --json",
    ],
)
def test_a_command_says_the_same_by_way_of_a_server(world: World, command: str) -> None:
    names = {"COMPLETED": world.completed, "FAILED": world.failed, "STRATEGY": str(MOMENTUM)}
    here, elsewhere = both(world, *(names.get(word, word) for word in command.split()))
    assert elsewhere.without_times() == here.without_times()


@pytest.mark.parametrize(
    "command", [("ops", "show", ""), ("tokens", "create", " "), ("ops", "logs", "x" * 65)]
)
def test_an_empty_name_is_wrong_in_the_same_words(
    world: World, tmp_path: Path, command: tuple[str, ...]
) -> None:
    there = ktrdr(*command, variables=world.served.variables(tmp_path, Role.ADMIN))
    assert there == ktrdr(*command, variables=world.here)
    assert (there.status, "  fix: " in there.stderr) == (1, True)


def without_places(model: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in model.items() if name not in PLACES}


@pytest.mark.parametrize("command", ["models list", "models show momentum"])
def test_models_are_the_same_but_for_where_their_files_are(world: World, command: str) -> None:
    here, elsewhere = (said.json for said in both(world, *command.split(), "--json"))
    if isinstance(here, dict):
        here, elsewhere = [here], [elsewhere]
    assert [without_places(model) for model in elsewhere] == [without_places(model) for model in here]
    (model,) = elsewhere
    assert model["report"] == f"{world.served.url}/api/v1/models/{model['name']}/report"


def test_strategies_are_those_of_the_server(world: World) -> None:
    here, elsewhere = both(world, "strategies", "list")
    assert "eurusd_momentum" in here.stdout
    assert (elsewhere.stdout, elsewhere.stderr) == (here.stdout, here.stderr)
    by_name = ktrdr("strategies", "validate", "eurusd_momentum", variables=world.elsewhere)
    assert "eurusd_momentum: valid, " in by_name.stdout
    unknown = ktrdr("strategies", "validate", "eurusd_momentun", variables=world.elsewhere)
    assert "Did you mean 'eurusd_momentum'?" in " ".join(unknown.stderr.split())


def test_the_default_mode_is_set_by_who_may(world: World, tmp_path: Path) -> None:
    refused = ktrdr("config", "set", "default_mode", "auto", variables=world.elsewhere)
    assert (refused.status, "takes the role admin" in refused.stderr) == (1, True)
    admin = world.served.variables(tmp_path, Role.ADMIN)
    assert ktrdr("config", "set", "default_mode", "local", variables=admin).status == 0
    here, elsewhere = both(world, "config", "get", "--json")
    assert elsewhere.json == here.json == {"default_mode": {"value": "local", "source": "set at run time"}}


# --- training


async def make_a_model(api: Api) -> None:
    """Have the agent carry out the next training that is still wanted."""
    run = await api.agent.take()
    while api.store.get(run.request.operation_id).state.terminal:
        run = await api.agent.take()
    await api.agent.finish(run)


def train(world: World, *arguments: str) -> Said:
    return ktrdr("train", *arguments, "--mode", "local", "--seed", "5", variables=world.elsewhere)


def test_a_training_is_followed_to_its_model(world: World) -> None:
    made = world.served.begin(make_a_model(world.served.api))
    said = train(world, str(MOMENTUM), "--json")
    made.result(PATIENCE_S)
    assert (said.status, said.json["state"], said.json["seed"]) == (0, "completed", 5)
    shown = ktrdr("models", "show", said.json["model"]["name"], "--json", variables=world.elsewhere)
    assert said.json["model"] == shown.json


def prepared(shown: str) -> list[str]:
    """Return what a training has shown before there was an operation."""
    lines = shown.splitlines()
    return lines[: next(number for number, line in enumerate(lines) if line.startswith("Operation op-"))]


def test_warnings_and_the_report_on_the_bars_are_shown_as_they_are_here(
    world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    strategy = tmp_path / "idle.yaml"
    unused = "indicators:\n  idle_rsi: {type: rsi, period: 3}\n"
    strategy.write_text(MOMENTUM.read_text().replace("indicators:\n", unused))
    made = world.served.begin(make_a_model(world.served.api))
    there = train(world, str(strategy))
    assert there.status == 0, there.stderr
    made.result(PATIENCE_S)
    here = world.served.api.settings.model_copy(update={"home": tmp_path / "home"})
    with OperationStore.open(here) as store, TrainingView() as view:
        submit_to_hosts(TrainingWish(str(strategy)), here, store, listener=view.listener)
    shown = prepared(there.stderr)
    assert shown == prepared(capsys.readouterr().err)
    assert "idle_rsi: is not used" in shown[0]
    assert " bars of 1h from 2017-01-01 " in shown[-1]


def test_a_training_whose_answer_is_lost_is_started_once(world: World) -> None:
    store = world.served.api.store
    before = len(store.list_operations())
    world.served.to_lose[0] = 2
    said = train(world, "eurusd_momentum", "--detach", "--json")
    assert (said.status, world.served.to_lose[0]) == (0, 0)
    assert len(store.list_operations()) == before + 1
    cancelled = ktrdr("ops", "cancel", said.json["operation_id"], variables=world.elsewhere)
    assert cancelled.status == 0
    assert store.get(said.json["operation_id"]).state is State.CANCELLED


def test_who_may_only_read_starts_nothing(world: World, tmp_path: Path) -> None:
    viewer = world.served.variables(tmp_path, Role.VIEWER)
    refused = ktrdr("train", str(MOMENTUM), "--detach", variables=viewer)
    assert refused.status == 1
    assert "This takes the role operator; the token's is viewer." in " ".join(refused.stderr.split())


def test_what_was_cancelled_is_asked_for_once_more_here_or_there_and_once_only(world: World) -> None:
    api = world.served.api
    first = world.served.do(cancelled(api, seed=11))
    world.served.to_lose[0] = 2
    there = ktrdr("ops", "retry", first, "--json", variables=world.elsewhere)
    here = ktrdr("ops", "retry", first, "--seed", "12", "--lane", "slow", "--json", variables=world.here)
    again = [api.store.get(said.json["operation_id"]) for said in (there, here)]
    assert [(each.retry_of, each.seed) for each in again] == [(first, 11), (first, 12)]
    assert [str(entry.kind) for entry in api.store.history(first)].count("retried") == 2
    shown = ktrdr("ops", "show", again[1].operation_id, variables=world.elsewhere)
    assert first in next(line for line in shown.stdout.splitlines() if line.startswith("repeats"))
    for each in again:
        assert ktrdr("ops", "cancel", each.operation_id, variables=world.elsewhere).status == 0


def test_bars_of_this_machine_are_not_passed_over_in_silence(world: World, tmp_path: Path) -> None:
    refused = ktrdr("train", str(MOMENTUM), "--data", str(tmp_path), variables=world.elsewhere)
    assert refused.status == 1
    assert "--data names bars of this machine" in " ".join(refused.stderr.split())


# --- tokens


def test_an_admin_makes_lists_and_ends_tokens_from_elsewhere(world: World, tmp_path: Path) -> None:
    admin = world.served.variables(tmp_path, Role.ADMIN)
    made = ktrdr("tokens", "create", "grafana", "--role", "viewer", "--days", "3", "--json", variables=admin)
    assert (made.status, made.json["role"], made.json["revoked_at"]) == (0, "viewer", None)
    lets_in = {**admin, "KTRDR_TOKEN": made.json["token"]}
    assert ktrdr("ops", "list", variables=lets_in).status == 0
    listed = ktrdr("tokens", "list", variables=admin).without_times()
    assert listed == ktrdr("tokens", "list", variables=world.here).without_times()
    assert made.json["id"] in listed.stdout
    assert made.json["token"] not in listed.stdout
    assert ktrdr("tokens", "revoke", "grafana", "--json", variables=admin).json["revoked"]
    refused = ktrdr("ops", "list", variables=lets_in)
    assert (refused.status, "was revoked" in refused.stderr) == (1, True)
    by_whom = [entry.who for entry in world.served.api.audited() if entry.subject.startswith("grafana")]
    assert [who.partition(" (")[0] for who in by_whom] == ["a admin", "a admin"]


@pytest.mark.parametrize("command", ["create me --role admin", "list", "revoke me"])
@pytest.mark.parametrize("role", [Role.VIEWER, Role.OPERATOR])
def test_nobody_else_does(world: World, tmp_path: Path, role: Role, command: str) -> None:
    refused = ktrdr("tokens", *command.split(), variables=world.served.variables(tmp_path, role))
    assert (refused.status, "takes the role admin" in refused.stderr) == (1, True)


def test_a_token_whose_answer_is_lost_is_not_made_twice(world: World, tmp_path: Path) -> None:
    admin = world.served.variables(tmp_path, Role.ADMIN)
    world.served.to_lose[0] = 1
    assert ktrdr("tokens", "create", "lost", variables=admin).status == 1
    listed = ktrdr("tokens", "list", "--json", variables=admin).json
    assert [token["name"] for token in listed].count("lost") == 1


@pytest.mark.parametrize("command", ["create x --role root", "revoke unheard-of", "revoke"])
def test_what_is_wrong_with_a_token_is_said_as_it_is_here(world: World, tmp_path: Path, command: str) -> None:
    admin = world.served.variables(tmp_path, Role.ADMIN)
    there = ktrdr("tokens", *command.split(), variables=admin)
    here = ktrdr("tokens", *command.split(), variables=world.here)
    assert there.status == here.status != 0
    assert here.stderr.removeprefix("error: ") in there.stderr


# --- dead letters; those of a broker: `tests/broker/test_served_dead.py`


def test_of_a_server_without_a_broker_they_are_those_within_it(world: World, tmp_path: Path) -> None:
    admin = world.served.variables(tmp_path, Role.ADMIN)
    world.served.do(world.served.api.bury(Message(b"nonsense", "0192-1", "nonsense")))
    listed = ktrdr("dead", "list", variables=admin)
    assert "0192-1" in listed.stdout
    assert "of the bus within `ktrdr serve`, and end with it" in listed.stderr
    assert ktrdr("dead", "discard", "--all", "--yes", variables=admin).status == 0
    assert "No dead letters." in ktrdr("dead", "list", variables=admin).stderr
    here = ktrdr("dead", "list", variables=world.here)
    assert (here.status, "No broker is named" in here.stderr) == (1, True)


# --- what nobody needs any more


def test_what_nobody_needs_is_shown_and_removed_at_the_server(world: World, tmp_path: Path) -> None:
    admin = world.served.variables(tmp_path, Role.ADMIN)
    log = world.served.api.settings.logs_dir / "work-1.log"
    log.parent.mkdir(exist_ok=True)
    log.write_bytes(b"12")
    os.utime(log, (0, 0))
    here = ktrdr("clean", "--json", variables=world.here)
    assert ktrdr("clean", "--json", variables=admin).json == here.json
    assert "log files" in [each["what"] for each in here.json["refuse"]]
    assert log.exists()
    assert "Removed." in ktrdr("clean", "--apply", variables=admin).stderr
    assert not log.exists()
    with world.served.api.store.reading() as connection:
        written = connection.execute(select(audit_log).where(audit_log.c.action == "POST /api/v1/cleaning"))
        (entry,) = written.all()
    assert "1 log files" in entry.subject


def test_a_lost_answer_to_clean_says_how_to_see_what_is_left(world: World, tmp_path: Path) -> None:
    admin = world.served.variables(tmp_path, Role.ADMIN)
    world.served.to_lose[0] = 1
    said = ktrdr("clean", "--apply", variables=admin)
    assert said.status == 1
    assert "It may have been done." in " ".join(said.stderr.split())
    assert "ktrdr clean" in said.stderr


# --- which installation


def test_the_option_counts_for_more_than_the_variable(world: World) -> None:
    variables = {**world.elsewhere, "KTRDR_SERVER": "http://127.0.0.1:9"}
    said = ktrdr("--server", world.served.url, "ops", "list", "--json", variables=variables)
    assert [each["operation_id"] for each in said.json].count(world.completed) == 1


def test_the_token_may_be_in_a_file(world: World, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(world.elsewhere["KTRDR_TOKEN"] + "\n")
    variables = {name: value for name, value in world.elsewhere.items() if name != "KTRDR_TOKEN"}
    said = ktrdr("ops", "list", variables={**variables, "KTRDR_TOKEN_FILE": str(file)})
    assert said.status == 0


@pytest.mark.parametrize("command", ["work", "db status", "doctor", "serve"])
def test_a_command_about_this_machine_refuses_a_server_that_is_named(world: World, command: str) -> None:
    said = ktrdr("--server", world.served.url, *command.split(), variables=world.here)
    assert said.status == 1
    assert "works on the machine where it is run" in " ".join(said.stderr.split())


def test_a_command_about_this_machine_takes_no_notice_of_the_variable(world: World) -> None:
    here = ktrdr("db", "status", "--json", variables={**world.here, "KTRDR_SERVER": world.served.url})
    assert here.status == 0


def test_a_command_that_cannot_ask_the_server_is_not_about_this_machine_instead(world: World) -> None:
    said = ktrdr("strategies", "check-leakage", str(MOMENTUM), variables=world.elsewhere)
    assert said.status == 1
    assert "Run it on the machine of the server" in " ".join(said.stderr.split())
