"""Where the tests get a broker from, and what they say when they get none."""

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.broker.broker import any_broker
from tests.broker.errors import BrokerUnavailableError
from tests.broker.search import docker_answers

REPOSITORY = Path(__file__).parents[2]
SCRIPT = REPOSITORY / "scripts" / "obtain-broker"
COMMANDS_OF_THE_SCRIPT = ("bash", "dirname", "id")

_PONG = b"HTTP/1.1 200 OK\r\nApi-Version: 1.44\r\nContent-Length: 2\r\n\r\nOK"
_FAILURE = b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n"
_VERSION = (
    b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 21\r\n\r\n{"ApiVersion":"1.44"}'
)


@pytest.fixture
def bare_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No RabbitMQ, no Docker and no package manager; returns the only directory of programs."""
    programs = tmp_path / "programs"
    programs.mkdir()
    monkeypatch.delenv("KTRDR_TEST_AMQP_URL", raising=False)
    monkeypatch.setenv("KTRDR_TEST_RABBITMQ", str(tmp_path / "nothing"))
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/docker.sock")
    monkeypatch.setenv("PATH", str(programs))
    return programs


def obtain() -> subprocess.CompletedProcess[str]:
    return subprocess.run([SCRIPT, sys.executable], capture_output=True, text=True, check=False)


def add(programs: Path, *names: str) -> None:
    for name in names:
        path = programs / name
        path.write_text("")
        path.chmod(0o755)


def test_the_broker_that_is_named_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KTRDR_TEST_AMQP_URL", "amqp://somewhere")
    with any_broker() as broker:
        assert broker.url == "amqp://somewhere"
        assert broker.node is None


def test_without_a_broker_there_is_an_error_and_no_skip(bare_machine: Path) -> None:
    with pytest.raises(BrokerUnavailableError, match="no rabbitmq-server on this machine"), any_broker():
        pass


@pytest.mark.parametrize(
    ("package_manager", "command"),
    [("apt-get", "scripts/obtain-broker"), ("dnf", "dnf install"), ("other", "https://get.docker.com")],
)
@pytest.mark.skipif(sys.platform == "darwin", reason="There it is always brew.")
def test_the_error_names_the_command_of_this_system(
    bare_machine: Path, package_manager: str, command: str
) -> None:
    add(bare_machine, package_manager)
    with pytest.raises(BrokerUnavailableError, match=command), any_broker():
        pass


def test_the_script_does_nothing_when_a_broker_is_named(
    bare_machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    link_commands(bare_machine)
    monkeypatch.setenv("KTRDR_TEST_AMQP_URL", "amqp://somewhere")
    done = obtain()
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_script_says_what_to_do_where_it_cannot_install(bare_machine: Path) -> None:
    link_commands(bare_machine)
    done = obtain()
    assert done.returncode == 1
    assert "Get one: " in done.stderr
    assert "-m 'not broker'" in done.stderr


async def test_an_engine_of_docker_that_answers_is_used(bare_machine: Path) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while head := await reader.readuntil(b"\r\n\r\n"):
            answer_as_docker(head, writer)

    async with engine(bare_machine, answer):
        assert await asyncio.to_thread(docker_answers)


async def test_an_engine_of_docker_that_does_not_start_a_broker_is_passed_over(bare_machine: Path) -> None:
    failed = asyncio.Event()

    async def fail(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while head := await reader.readuntil(b"\r\n\r\n"):
            if not answer_as_docker(head, writer):
                writer.write(_FAILURE)
                failed.set()

    def find() -> None:
        with any_broker():
            pass

    async with engine(bare_machine, fail):
        with pytest.raises(BrokerUnavailableError, match="no rabbitmq-server on this machine"):
            await asyncio.to_thread(find)
    assert failed.is_set()


async def test_an_engine_of_docker_that_is_silent_is_not_waited_for(bare_machine: Path) -> None:
    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async with engine(bare_machine, say_nothing):
        assert not await asyncio.to_thread(docker_answers)


def answer_as_docker(head: bytes, writer: asyncio.StreamWriter) -> bool:
    answer = _PONG if b"/_ping" in head else _VERSION if b"/version" in head else b""
    writer.write(answer)
    return bool(answer)


def link_commands(programs: Path) -> None:
    for name in COMMANDS_OF_THE_SCRIPT:
        (programs / name).symlink_to(next(place for place in usual(name) if place.exists()))


def usual(name: str) -> list[Path]:
    return [Path(directory) / name for directory in ("/bin", "/usr/bin")]


@asynccontextmanager
async def engine(
    bare_machine: Path, serve: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
) -> AsyncIterator[None]:
    server = await asyncio.start_unix_server(serve, os.environ["DOCKER_HOST"].removeprefix("unix://"))
    try:
        yield
    finally:
        server.close()
