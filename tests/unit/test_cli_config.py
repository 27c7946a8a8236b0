"""`ktrdr config`, and the mode that `ktrdr train` is asked for."""

import json
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from ktrdr.cli.main import app


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KTRDR_HOME", str(tmp_path))


def _ktrdr(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments)


def _default() -> dict[str, str]:
    found: dict[str, dict[str, str]] = json.loads(_ktrdr("config", "get", "--json").stdout)
    return found["default_mode"]


def test_the_default_mode_tells_who_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert _default() == {"value": "local", "source": "no broker is named"}
    assert not (tmp_path / "ktrdr.db").exists()
    monkeypatch.setenv("KTRDR_BROKER_URL", "amqp://broker/")
    assert _default() == {"value": "host", "source": "a broker is named"}
    monkeypatch.setenv("KTRDR_DEFAULT_MODE", "auto")
    assert _default() == {"value": "auto", "source": "KTRDR_DEFAULT_MODE"}
    assert _ktrdr("config", "set", "default_mode", "local").exit_code == 0
    assert _default() == {"value": "local", "source": "set at run time"}
    assert _ktrdr("config", "get", "default_mode").stdout == "local\n"


@pytest.mark.parametrize(
    ("arguments", "fix"),
    [
        (("config", "set", "default_mode", "cloud"), "Choose one of: auto, local, host."),
        (("config", "set", "colour", "red"), "Name default_mode."),
        (("config", "get", "colour"), "Name default_mode."),
        (("train", "any", "--mode", "cloud"), "Choose one of: auto, local, host."),
        (("train", "any", "--mode", "local", "--lane", "gpu"), "Name no lane, or mode host."),
    ],
)
def test_what_there_is_not_is_refused_with_what_there_is(arguments: tuple[str, ...], fix: str) -> None:
    refused = _ktrdr(*arguments)
    assert refused.exit_code == 1
    assert fix in " ".join(refused.stderr.split())


def test_a_gpu_that_is_not_here_is_refused_before_anything_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KTRDR_DEVICE", "cpu")
    refused = _ktrdr("train", "no-such-strategy", "--require-gpu")
    assert refused.exit_code == 1
    assert "requires a GPU and is to run here, where there is none" in " ".join(refused.stderr.split())
