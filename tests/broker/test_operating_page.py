"""Every command of `docs/operating.md`, run as it is written there, while everything works."""

import asyncio
import re
import shlex
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ktrdr.backend.store import OperationStore
from ktrdr.backend.tokens import AccessTokens, Role
from ktrdr.bus.rabbitmq import RabbitMQBus
from ktrdr.bus.topology import EVENTS
from ktrdr.cli.main import app
from ktrdr.events.message import Message
from tests.broker.node import PrivateNode
from tests.broker.operating_world import World, working
from tests.e2e.installation import epochs
from tests.e2e.waiting import eventually
from tests.unit.api_cases import BY_A_TEST

pytestmark = [pytest.mark.broker, pytest.mark.xdist_group("operating")]

PAGE = (Path(__file__).parents[2] / "docs" / "operating.md").read_text()
LETTER = "dead-letter-1"
WITHIN_S = 60.0


def commands() -> list[str]:
    """Each command once, without what the shell does not see."""
    blocks = re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL)
    lines = [line.partition(" #")[0].strip() for block in blocks for line in block.splitlines()]
    return list(dict.fromkeys(line for line in lines if line.startswith("ktrdr ")))


def inline_commands() -> set[str]:
    """What the text and its tables name, without arguments."""
    return {" ".join(words.split()[:3]) for words in re.findall(r"`(ktrdr [a-z][^`]*)`", PAGE)}


@pytest.fixture(scope="module")
def world(any_private_node: PrivateNode, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with working(any_private_node, tmp_path_factory.mktemp("world")) as there:
        yield there


@pytest.fixture
def run(world: World, monkeypatch: pytest.MonkeyPatch) -> Iterator[CliRunner]:
    """Runs commands where the backend runs; somebody is there who answers."""
    for name, value in world.installation.environment.items():
        if name.startswith("KTRDR_"):
            monkeypatch.setenv(name, value)
    monkeypatch.chdir(world.installation.root)
    monkeypatch.setattr("ktrdr.cli.dead.can_ask", lambda: True)
    return CliRunner()


def as_written(command: str, world: World) -> list[str]:
    """The words of a command, with what the page leaves to the reader."""
    letter_or_operation = LETTER if command.startswith("ktrdr dead") else world.operation_id
    for written, meant in {
        " ID": f" {letter_or_operation}",
        "http://admin:PASSWORD@localhost:15672": world.management_url,
        "amqp://backend:PASSWORD@new-broker/": world.url("backend"),
    }.items():
        command = command.replace(written, meant)
    assert "PASSWORD" not in command
    return shlex.split(command)[1:]


async def bury(world: World) -> None:
    """Have an agent say what no backend can read."""
    bus = RabbitMQBus(world.url("agent"), name="host-agent@elsewhere")
    message = Message(b"nonsense", LETTER, "nonsense")
    await bus.publish(
        message, exchange=EVENTS, routing_key="training.op-1.failed", mandatory=True, timeout_s=60.0
    )
    await bus.close()


def test_the_page_has_commands() -> None:
    assert len(commands()) >= 15


@pytest.mark.parametrize("command", commands())
def test_a_command_of_the_page_works(command: str, world: World, run: CliRunner) -> None:
    words = as_written(command, world)
    if words[0] == "agent":
        works_as_its_own_user(world, words)
        return
    if words[0] == "dead" and words[1] != "list":
        asyncio.run(bury(world))
        eventually(lambda: LETTER in said(run, "dead", "list"), within_s=WITHIN_S, otherwise="it has died")
    said(run, *words)
    if words[0] == "dead":
        said(run, "dead", "discard", "--all")


def test_dead_letters_are_cared_for_by_way_of_the_server_whose_user_may_do_no_more_than_it_must(
    world: World, run: CliRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    with OperationStore.open(world.installation.settings) as store:
        token = AccessTokens(store).create("an admin", Role.ADMIN, witness=BY_A_TEST).secret
    monkeypatch.setenv("KTRDR_SERVER", world.server)
    monkeypatch.setenv("KTRDR_TOKEN", token)
    monkeypatch.delenv("KTRDR_BROKER_URL")
    for command in (each for each in commands() if each.startswith("ktrdr dead")):
        asyncio.run(bury(world))
        eventually(lambda: LETTER in said(run, "dead", "list"), within_s=WITHIN_S, otherwise="it has died")
        said(run, *as_written(command, world))
        said(run, "dead", "discard", "--all")


def works_as_its_own_user(world: World, words: list[str]) -> None:
    """Start the agent of the page, have it train, and drain it."""
    name, home = "gpu-box", world.installation.root / "gpu-box"
    world.add_agents_user(name)
    agent = world.installation.start(
        *words,
        KTRDR_BROKER_URL=world.url(name),
        KTRDR_HOME=str(home),
        KTRDR_BLOB_STORE=str(world.installation.settings.blobs_dir),
    ).until_said("listening")
    trained = world.installation.train("--lane", "gpu", *epochs(2), "--json", seed=8).succeed().json()
    assert (trained["state"], trained["agent_id"]) == ("completed", name)
    agent.send(signal.SIGTERM)
    agent.succeed()
    world.node.management.delete_user(name)


def said(run: CliRunner, *words: str) -> str:
    ran = run.invoke(app, list(words), input="y\n")
    assert ran.exit_code == 0, ran.output
    return ran.output


@pytest.mark.parametrize("command", sorted(inline_commands()))
def test_a_command_that_the_text_names_is_there(command: str, run: CliRunner) -> None:
    words = [word for word in command.split()[1:] if re.fullmatch(r"[a-z]+", word)]
    assert "Usage: " in said(run, *words, "--help")


def test_reasons_to_wait_are_those_that_the_program_gives() -> None:
    sources = "".join(
        (Path(__file__).parents[2] / "ktrdr" / "backend" / name).read_text()
        for name in ("fleet.py", "explaining.py")
    )
    table = PAGE.partition("| `waits for` | do |")[2].partition("\n\n")[0]
    reasons = re.findall(r"^\| `(.+?)` \|", table, re.MULTILINE)
    assert len(reasons) == 5
    for reason in reasons:
        words = re.sub(r"\\{.*?\\}|lane (gpu|any)|ktrdr serve", "*", reason).split("*")
        assert all(part.strip() in sources for part in words), reason
