"""Commands that only look, and what each says of itself."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from ktrdr.cli.main import app


@pytest.mark.parametrize(
    ("command", "status"),
    [
        ("ops list", 0),
        ("models list", 0),
        ("models verify", 0),
        ("ops show x", 1),
        ("models show x", 1),
    ],
)
def test_nothing_is_created_by_looking(
    command: str, status: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KTRDR_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("KTRDR_MODELS_DIR", str(tmp_path / "models"))
    assert CliRunner().invoke(app, command.split()).exit_code == status
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", ["", "train", "ops", "models", "strategies", "work", "doctor"])
def test_every_command_explains_itself(command: str) -> None:
    said = CliRunner().invoke(app, [*command.split(), "--help"])
    assert said.exit_code == 0
    assert "Usage: " in said.stdout
