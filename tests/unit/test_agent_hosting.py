"""The agent as a process: signals, its name, and what keeps it from starting."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from host_agent.directory import open_directory
from host_agent.naming import agent_name, name_from
from ktrdr.errors import AgentError, SettingsError
from ktrdr.settings import load_settings

LIMIT_S = 60.0


@contextmanager
def agent_process(root: Path, behaviour: str, **variables: str) -> Iterator[subprocess.Popen[str]]:
    """Run `tests.unit.agent_process` until it is ready to be signalled."""
    with (
        (root / "log").open("w") as log,
        subprocess.Popen(
            [sys.executable, "-m", "tests.unit.agent_process", str(root), behaviour],
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env={**os.environ, **variables},
        ) as process,
    ):
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n", (root / "log").read_text()
            yield process
        finally:
            process.kill()


def ended(process: subprocess.Popen[str]) -> dict[str, list[str]]:
    """Wait for the process to end well, and return what it says."""
    output, _ = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 0
    said: dict[str, list[str]] = json.loads(output)
    return said


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP], ids=lambda n: n.name)
def test_an_agent_that_is_told_to_stop_says_so_and_ends_well(tmp_path: Path, number: signal.Signals) -> None:
    with agent_process(tmp_path, "idle") as process:
        process.send_signal(number)
        said = ended(process)
    assert said["states"][-1] == "stopped"


def test_what_runs_may_end_while_the_agent_drains_and_nothing_is_begun(tmp_path: Path) -> None:
    with agent_process(tmp_path, "finishes", KTRDR_DRAIN_S="3600") as process:
        process.terminate()
        said = ended(process)
    assert said["heard"] == ["TrainingAccepted", "ModelReady"]
    assert "draining" in said["states"]
    assert not list(tmp_path.glob("agents/agent/claims/*"))


def test_what_does_not_end_in_time_is_handed_over(tmp_path: Path) -> None:
    with agent_process(tmp_path, "runs", KTRDR_DRAIN_S="0.2") as process:
        process.terminate()
        said = ended(process)
    assert said["causes"] == ["agent_shutdown"]
    assert said["states"][-1] == "stopped"
    assert not list(tmp_path.glob("agents/agent/claims/*"))


def test_a_second_signal_ends_the_time_that_the_first_gave(tmp_path: Path) -> None:
    with agent_process(tmp_path, "runs", KTRDR_DRAIN_S="3600") as process:
        process.terminate()
        wait_for_line(tmp_path / "log", "draining")
        process.terminate()
        said = ended(process)
    assert said["causes"] == ["agent_shutdown"]


def test_a_third_signal_kills(tmp_path: Path) -> None:
    with agent_process(tmp_path, "stuck", KTRDR_DRAIN_S="3600") as process:
        process.terminate()
        wait_for_line(tmp_path / "log", "draining")
        process.terminate()
        wait_for_line(tmp_path / "log", "handing over")
        process.terminate()
        assert process.wait(LIMIT_S) == 130
    assert len(list(tmp_path.glob("agents/agent/claims/*,1,*"))) == 1


def wait_for_line(log: Path, event: str) -> None:
    """Wait until the log of a process says so."""
    deadline = time.monotonic() + LIMIT_S
    while not any(json.loads(line)["event"] == event for line in log.read_text().splitlines()):
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.02)


# --- its name


def test_an_agent_is_called_after_its_machine_and_stays_so_when_that_is_renamed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "GPU-Box.lan")
    assert agent_name(tmp_path / "agents", None) == "gpu-box"
    monkeypatch.setattr(socket, "gethostname", lambda: "another.home")
    assert agent_name(tmp_path / "agents", None) == "gpu-box"
    assert agent_name(tmp_path / "agents", "chosen") == "chosen"


@pytest.mark.parametrize(
    ("host", "name"),
    [
        ("box", "box"),
        ("Max's MacBook Pro.local", "max-s-macbook-pro"),
        ("..", "host"),
        ("-x-", "x"),
        ("größe", "gr-e"),
        ("embedded-1", "host"),
        ("a" * 200, "a" * 64),
    ],
)
def test_any_host_name_becomes_a_safe_name(host: str, name: str) -> None:
    assert name_from(host) == name
    assert load_settings(agent_id=name).agent_id == name


def test_a_kept_name_that_is_no_name_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "box")
    (tmp_path / "name").write_bytes(b"../../etc\xff")
    assert agent_name(tmp_path, None) == "box"
    assert (tmp_path / "name").read_text() == "box\n"


def test_the_names_of_agents_inside_a_backend_are_theirs(tmp_path: Path) -> None:
    with pytest.raises(AgentError, match="embedded-1"):
        agent_name(tmp_path, "embedded-1")


def test_a_name_that_cannot_be_kept_is_an_error_with_its_fix(tmp_path: Path) -> None:
    (tmp_path / "agents").write_text("in the way")
    with pytest.raises(AgentError, match="KTRDR_HOME"):
        agent_name(tmp_path / "agents", None)


# --- what keeps it from starting


def run_command(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("KTRDR_")}
    return subprocess.run(
        [sys.executable, "-m", "ktrdr.cli.agent", *arguments],
        capture_output=True,
        check=False,
        text=True,
        timeout=LIMIT_S,
        env={**inherited, "COLUMNS": "200", **variables},
    )


def test_an_agent_without_a_broker_says_what_to_set(tmp_path: Path) -> None:
    result = run_command("--home", str(tmp_path))
    assert result.returncode == 1
    assert "KTRDR_BROKER_URL" in result.stderr
    assert "Traceback" not in result.stderr


def test_two_agents_of_one_name_on_one_machine_are_refused(tmp_path: Path) -> None:
    with open_directory(tmp_path / "agents", "box"):
        result = run_command(
            "--home", str(tmp_path), "--name", "box", "--broker", "amqp://agent:secret@localhost:1/"
        )
    assert result.returncode == 1
    assert "Another agent is running as 'box'" in result.stderr
    assert "secret" not in result.stderr


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--name", "../x"], "agent_id"),
        (["--slots", "0"], "slots"),
        (["--device", "tpu"], "device"),
        (["--drain", "-1"], "drain_s"),
        (["--lane", "a/b"], "lanes"),
    ],
)
def test_an_option_that_cannot_be_is_refused_by_name(
    tmp_path: Path, arguments: list[str], complaint: str
) -> None:
    result = run_command("--home", str(tmp_path), "--broker", "amqp://a:secret@localhost:1/", *arguments)
    assert result.returncode == 1
    assert complaint in result.stderr
    assert "secret" not in result.stderr
    assert "Traceback" not in result.stderr


# --- secrets in files


def test_a_secret_may_be_in_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "url").write_text("amqp://agent:secret@broker/\n")
    monkeypatch.setenv("KTRDR_BROKER_URL_FILE", str(tmp_path / "url"))
    settings = load_settings()
    assert settings.broker_url is not None
    assert settings.broker_url.get_secret_value() == "amqp://agent:secret@broker/"
    assert "secret" not in repr(settings)


def test_what_is_said_directly_comes_before_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "url").write_text("amqp://of-the-file/")
    monkeypatch.setenv("KTRDR_BROKER_URL_FILE", str(tmp_path / "url"))
    given = load_settings(broker_url="amqp://given/").broker_url
    monkeypatch.setenv("KTRDR_BROKER_URL", "amqp://of-the-variable/")
    found = load_settings().broker_url
    assert given is not None
    assert found is not None
    assert (given.get_secret_value(), found.get_secret_value()) == (
        "amqp://given/",
        "amqp://of-the-variable/",
    )


def test_a_file_of_a_secret_that_cannot_be_read_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KTRDR_BLOB_TOKEN_FILE", str(tmp_path / "missing"))
    with pytest.raises(SettingsError, match=r"KTRDR_BLOB_TOKEN_FILE: .*missing cannot be read: No such file"):
        load_settings()
