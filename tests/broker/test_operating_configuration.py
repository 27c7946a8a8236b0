"""The shipped configuration of the broker, as `docker compose` has it loaded."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from ktrdr.cli.main import app
from tests.broker.node import PrivateNode
from tests.broker.node_config import NodeConfig
from tests.e2e.waiting import eventually

# All in one worker, so that the node of this module is started once.
pytestmark = [pytest.mark.broker, pytest.mark.xdist_group("configuration")]

ROOT = Path(__file__).parents[2]
PASSWORDS = {
    "BACKEND_PASSWORD": "b",
    "AGENT_PASSWORD": "a",
    "OBSERVER_PASSWORD": "o",
    "ADMIN_PASSWORD": "root",
}


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrivateNode]:
    """A node as in a container: with the shipped file, and with the definitions that the command writes."""
    definitions = tmp_path_factory.mktemp("definitions") / "definitions.json"
    arguments = ["broker", "definitions", "--admin", "admin", "--output", str(definitions)]
    ran = CliRunner().invoke(app, arguments, env=PASSWORDS)
    assert (ran.exit_code, ran.stderr.strip()) == (0, f"Wrote {definitions}")
    lines = (ROOT / "deploy/rabbitmq/rabbitmq.conf").read_text().splitlines()
    lines.remove("load_definitions = /definitions/definitions.json")
    plugins = (ROOT / "deploy/rabbitmq/enabled_plugins").read_text().strip("[].\n").split(",")
    config = NodeConfig(definitions=definitions, lines=tuple(lines), plugins=tuple(plugins))
    with PrivateNode(config) as started:
        yield started


def run_check(node: PrivateNode, user: str, password: str) -> Result:
    management = node.management_url.replace("://", "://admin:root@")
    url = node.amqp_url(user=user, password=password)
    return CliRunner().invoke(app, ["broker", "check", "--broker", url, "--management", management, "--json"])


def check(node: PrivateNode, user: str, password: str) -> list[dict[str, str]]:
    ran = run_check(node, user, password)
    assert ran.exit_code == 0, ran.output
    return list(json.loads(ran.stdout))


@pytest.mark.parametrize(
    ("user", "password"), [("backend", "b"), ("agent", "a"), ("observer", "o"), ("admin", "root")]
)
def test_each_user_finds_the_broker_as_it_should_be(node: PrivateNode, user: str, password: str) -> None:
    notes = {finding["name"] for finding in check(node, user, password) if finding["mark"] != "ok"}
    assert notes == (set() if user in ("backend", "admin") else {user})


def test_the_definitions_are_read_again_at_each_start(node: PrivateNode) -> None:
    node.management.delete_queue("ktrdr.lane.any")
    node.management.delete_user("agent")
    node.restart()
    # Streams come back some moments after the node says that it is ready.
    eventually(
        lambda: run_check(node, "agent", "a").exit_code == 0,
        within_s=60,
        otherwise=lambda: run_check(node, "agent", "a").output,
    )


@pytest.mark.parametrize(
    ("name", "value"),
    [("heartbeat", "30"), ("max_message_size", "16777216"), ("disk_free_limit", '"1GB"')],
)
def test_the_settings_of_the_file_are_in_force(node: PrivateNode, name: str, value: str) -> None:
    found = node.evaluate(f"application:get_env(rabbit, {name})")
    assert found.replace(" ", "") == f"{{ok,{value}}}"
