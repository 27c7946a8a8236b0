"""Trainings on host agents, over a real broker, with every part a process of its own."""

import json
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from host_agent.steps import AgentStep
from ktrdr.backend.records import HistoryKind
from ktrdr.backend.states import State
from ktrdr.training.progress import Stage
from tests.broker.node import PrivateNode
from tests.e2e.deployment import Deployment
from tests.e2e.installation import epochs
from tests.e2e.waiting import eventually

pytestmark = [pytest.mark.broker, pytest.mark.xdist_group("hosts")]

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory, any_private_node: PrivateNode) -> Iterator[Deployment]:
    """A backend and one agent that are at work already, for tests that kill nothing."""
    with Deployment(tmp_path_factory.mktemp("calm"), any_private_node) as at_work:
        at_work.serve()
        at_work.ready_agent("alpha")
        yield at_work


@pytest.fixture
def deployment(tmp_path: Path, private_node: PrivateNode) -> Iterator[Deployment]:
    with Deployment(tmp_path, private_node) as fresh:
        yield fresh


def test_a_model_trained_on_a_host_is_the_same_as_one_trained_here(
    calm: Deployment, undisturbed: str
) -> None:
    train = calm.train(*epochs(60), "--mode", "host").succeed()
    assert "[8/8] Packaging the model" in train.stderr
    trained = calm.operations()[-1]
    assert f"Trained {trained.model}" in train.stdout
    assert calm.sha256(str(trained.model)) == undisturbed
    assert trained.agent_id == "alpha"
    calm.wait_for_empty_queues()
    # What the agent has said of it came over the broker, in steps, and nothing was left out.
    said = calm.run("ops", "logs", trained.operation_id, "--follow", "--json").succeed().stdout
    lines = [json.loads(line) for line in said.splitlines()]
    assert [line["event"] for line in lines if line["source"] == "executor"] == [
        stage.step for stage in Stage
    ]
    assert [line["event"] for line in lines if line["event"] in {step.step for step in AgentStep}] == [
        step.step for step in AgentStep
    ]
    assert {(line["agent_id"], line["attempt"], line["left_out"]) for line in lines} == {("alpha", 1, 0)}


def test_a_second_backend_on_the_same_database_shares_the_work_until_it_is_stopped(calm: Deployment) -> None:
    second = calm.serve()
    told = json.loads(calm.run("db", "status", "--json").succeed().stdout)["servers"]
    assert (len(told), told[1]["pid"]) == (2, second.process.pid)
    operation = calm.submit(*epochs(20))
    calm.wait_for_all()
    second.send(signal.SIGTERM)
    assert second.wait() == 0
    assert calm.open_store().get(operation).state is State.COMPLETED
    assert [each.instance for each in calm.open_store().servers()] == [told[0]["instance"]]


def test_a_cancellation_reaches_the_agent_and_no_model_is_made(calm: Deployment) -> None:
    before = calm.versions()
    operation = calm.submit(*epochs(5000))
    eventually(lambda: calm.has_reached_epoch(1, operation=operation), within_s=60, otherwise=calm.describe)
    calm.run("ops", "cancel", operation).succeed()
    calm.wait_for_all(within_s=60)
    assert calm.operations()[-1].state is State.CANCELLED
    eventually(lambda: calm.agents()["alpha"].slots_busy == 0, within_s=60, otherwise=calm.describe)
    assert calm.versions() == before


def test_the_example_publishes_and_gets_its_models(calm: Deployment) -> None:
    before = set(calm.versions())
    example = calm.start_python(
        REPOSITORY / "examples" / "publish_and_wait.py",
        KTRDR_STRATEGIES_DIR=str(REPOSITORY / "strategies"),
    ).succeed()
    made = set(calm.versions()) - before
    assert len(made) == 3
    for version in made:
        assert version in example.stdout


def test_a_training_moves_to_another_agent_when_its_own_is_killed(
    deployment: Deployment, undisturbed: str
) -> None:
    deployment.serve()
    agents = {name: deployment.ready_agent(name) for name in ("alpha", "beta")}
    operation = deployment.submit(*epochs(60))
    eventually(lambda: deployment.has_reached_epoch(1), within_s=60, otherwise=deployment.describe)
    first = deployment.operation().agent_id
    assert first is not None
    agents[first].process.kill()
    deployment.wait_for_all()
    moved = deployment.operation()
    assert (moved.state, moved.attempt) == (State.COMPLETED, 2)
    assert moved.agent_id in agents
    assert moved.agent_id != first
    assert deployment.sha256(*deployment.versions()) == undisturbed
    kinds = [entry.kind for entry in deployment.history()]
    assert HistoryKind.LEASE_EXPIRED in kinds
    assert json.loads(deployment.run("ops", "show", operation, "--json").stdout)["history"]


@pytest.mark.long
def test_an_agent_that_is_started_again_says_at_once_what_it_held(deployment: Deployment) -> None:
    deployment.serve(KTRDR_LEASE_S="600")
    killed = deployment.ready_agent("alpha", KTRDR_LEASE_S="600")
    deployment.submit(*epochs(60))
    eventually(lambda: deployment.has_reached_epoch(1), within_s=60, otherwise=deployment.describe)
    killed.process.kill()
    killed.process.wait()
    deployment.agent("alpha", KTRDR_LEASE_S="600")
    deployment.wait_for_all()
    assert deployment.operation().attempt == 2
    assert any("agent_restarted" in entry.message for entry in deployment.history())


def test_a_backend_that_is_killed_finds_everything_when_it_is_started_again(
    deployment: Deployment, undisturbed: str
) -> None:
    served = deployment.serve()
    deployment.ready_agent("alpha")
    deployment.submit(*epochs(60))
    eventually(lambda: deployment.has_reached_epoch(1), within_s=60, otherwise=deployment.describe)
    served.process.kill()
    served.process.wait()
    deployment.submit(*epochs(2))
    eventually(deployment.has_spooled, within_s=60, otherwise=deployment.describe)
    deployment.serve()
    deployment.wait_for_all()
    assert [(op.state, op.attempt) for op in deployment.operations()] == [(State.COMPLETED, 1)] * 2
    assert deployment.sha256(str(deployment.operations()[0].model)) == undisturbed
    deployment.wait_for_empty_queues()


def test_training_goes_on_while_the_broker_is_away_and_its_model_arrives(
    deployment: Deployment, undisturbed: str
) -> None:
    deployment.serve()
    deployment.ready_agent("alpha")
    deployment.submit(*epochs(60))
    eventually(lambda: deployment.has_reached_epoch(1), within_s=60, otherwise=deployment.describe)
    deployment.node.kill()
    eventually(deployment.has_spooled, within_s=60, otherwise=deployment.describe)
    deployment.node.start()
    deployment.wait_for_all()
    assert (deployment.operation().state, deployment.operation().attempt) == (State.COMPLETED, 1)
    assert deployment.sha256(*deployment.versions()) == undisturbed
    deployment.wait_for_empty_queues()


def test_an_agent_that_is_told_to_stop_ends_well_and_hands_over_what_runs(deployment: Deployment) -> None:
    deployment.serve()
    leaving = deployment.ready_agent("alpha", KTRDR_DRAIN_S="0.5")
    deployment.submit(*epochs(2000))
    eventually(lambda: deployment.has_reached_epoch(1), within_s=60, otherwise=deployment.describe)
    leaving.send(signal.SIGTERM)
    assert leaving.wait() == 0
    deployment.agent("beta")
    eventually(lambda: deployment.has_reached_epoch(1, attempt=2), within_s=60, otherwise=deployment.describe)
    assert any("agent_shutdown" in entry.message for entry in deployment.history())
    deployment.run("ops", "cancel", deployment.operation().operation_id).succeed()
    deployment.wait_for_all()


@pytest.mark.long
def test_without_an_agent_a_training_for_hosts_runs_here_and_says_why(
    deployment: Deployment, undisturbed_briefly: str
) -> None:
    deployment.serve()
    train = deployment.train(*epochs(2), "--mode", "host").succeed()
    assert "Trains here: host was asked for, but no agent serves lane any" in " ".join(train.stderr.split())
    assert deployment.sha256(*deployment.versions()) == undisturbed_briefly


@pytest.mark.long
def test_what_a_lost_host_has_not_accepted_is_trained_by_the_backend_itself(
    deployment: Deployment, undisturbed_briefly: str
) -> None:
    deployment.variables |= {"KTRDR_ACCEPT_DEADLINE_S": "2", "KTRDR_LEASE_S": "60"}
    deployment.serve()
    lost = deployment.ready_agent("alpha")
    lost.process.kill()
    train = deployment.train(*epochs(2), "--mode", "host", "--json").succeed().json()
    assert (train["mode"], train["where"], train["state"]) == ("host", "local", "completed")
    assert train["agent_id"].startswith("embedded")
    assert deployment.sha256(*deployment.versions()) == undisturbed_briefly
    kinds = [entry.kind for entry in deployment.history()]
    assert kinds.count(HistoryKind.FELL_BACK) == 1


@pytest.mark.long
def test_a_training_that_nobody_can_take_says_what_it_waits_for(deployment: Deployment) -> None:
    operation = deployment.submit(*epochs(2), "--lane", "gpu")
    assert "ktrdr serve" in json.loads(deployment.run("ops", "show", operation, "--json").stdout)["waits_for"]
    deployment.serve()
    store = deployment.open_store()
    eventually(
        lambda: "gpu" in store.why_waiting(store.get(operation)), within_s=60, otherwise=deployment.describe
    )
    assert "gpu" in json.loads(deployment.run("ops", "show", operation, "--json").stdout)["waits_for"]
    deployment.run("ops", "cancel", operation).succeed()
    deployment.wait_for_all()
