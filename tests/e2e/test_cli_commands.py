"""The command line as a user runs it: real processes, real trainings."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.installation import MOMENTUM, Command, Installation


def say(installation: Installation, *arguments: str, status: int = 0) -> Command:
    """Run a command to its end, which must have that status and no traceback."""
    command = installation.run(*arguments)
    assert command.wait() == status, command.stderr
    assert "Traceback" not in command.stderr
    return command


def ask(installation: Installation, *arguments: str, status: int = 0) -> Any:
    """Run a command, and return what it says as JSON."""
    return say(installation, *arguments, "--json", status=status).json()


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Installation, Any]:
    """An installation in which one model was trained, and what `ktrdr train --json` said."""
    installation = Installation(tmp_path_factory.mktemp("trained"))
    installation.variables["KTRDR_STRATEGIES_DIR"] = str(MOMENTUM.parent)
    outcome = ask(
        installation,
        "train",
        "eurusd_momentum",
        "--seed",
        "7",
        "--set",
        "training.epochs=3",
        "--end",
        "2017-06-30",
    )
    return installation, outcome


@pytest.mark.xdist_group("cli")
def test_train_ends_with_a_persisted_model_and_its_report(trained: tuple[Installation, Any]) -> None:
    _, outcome = trained
    assert outcome["state"] == "completed"
    model = outcome["model"]
    assert model["name"] == "eurusd_momentum/EURUSD_1h_v1"
    path = Path(model["path"])
    assert sorted(file.name for file in path.iterdir()) == [
        "SHA256SUMS",
        "evaluation.parquet",
        "metadata.json",
        "model.safetensors",
        "report.html",
        "strategy.yaml",
    ]
    assert (path.parent / "EURUSD_1h_latest").resolve() == path.resolve()
    assert "baseline_majority_class_accuracy" in model["manifest"]["metrics"]
    metadata = json.loads((path / "metadata.json").read_text())
    assert metadata["overrides"] == {"training.epochs": 3}
    assert metadata["datasets"][0]["end"].startswith("2017-06-30")


@pytest.mark.xdist_group("cli")
def test_the_same_seed_gives_the_same_bundle_as_the_next_version(trained: tuple[Installation, Any]) -> None:
    installation, first = trained
    options = ["train", "eurusd_momentum", "--set", "training.epochs=3", "--end", "2017-06-30"]
    same = ask(installation, *options, "--seed", "7")["model"]
    assert same["version"] == 2
    assert same["bundle_sha256"] == first["model"]["bundle_sha256"]
    latest = Path(same["path"]).parent / "EURUSD_1h_latest"
    assert latest.resolve() == Path(same["path"]).resolve()


@pytest.mark.xdist_group("cli")
def test_coreutils_can_check_a_version_too(trained: tuple[Installation, Any]) -> None:
    _, outcome = trained
    subprocess.run(
        ["sha256sum", "--check", "--strict", "SHA256SUMS"], cwd=outcome["model"]["path"], check=True
    )


@pytest.mark.xdist_group("cli")
def test_verify_is_clean_until_a_file_is_tampered_with(trained: tuple[Installation, Any]) -> None:
    installation, outcome = trained
    name = outcome["model"]["name"]
    assert ask(installation, "models", "verify", name) == {name: []}
    weights = Path(outcome["model"]["path"]) / "model.safetensors"
    original = weights.read_bytes()
    weights.write_bytes(original[:-1] + bytes([original[-1] ^ 1]))
    try:
        findings = ask(installation, "models", "verify", name, status=1)[name]
        assert [finding["file"] for finding in findings] == ["model.safetensors"]
        refused = say(installation, "models", "predict", name, status=1)
        assert "error:" in refused.stderr
    finally:
        weights.write_bytes(original)


@pytest.mark.xdist_group("cli")
def test_predictions_are_probabilities_by_bar(trained: tuple[Installation, Any]) -> None:
    installation, _ = trained
    rows = ask(installation, "models", "predict", "eurusd_momentum", "--last", "5")
    assert [row["timestamp"][11:16] for row in rows] == ["17:00", "18:00", "19:00", "20:00", "21:00"]
    for row in rows:
        assert row["BUY"] + row["HOLD"] + row["SELL"] == pytest.approx(1, abs=1e-6)


@pytest.mark.xdist_group("cli")
def test_operations_are_listed_and_shown_with_their_history(trained: tuple[Installation, Any]) -> None:
    installation, outcome = trained
    listed = ask(installation, "ops", "list", "--state", "completed", "--limit", "100")
    assert outcome["operation_id"] in [operation["operation_id"] for operation in listed]
    shown = ask(installation, "ops", "show", outcome["operation_id"][-8:])
    kinds = [entry["kind"] for entry in shown["history"]]
    assert kinds[0] == "submitted"
    assert kinds[-1] == "model_persisted"
    assert "accepted" in kinds
    watched = say(installation, "ops", "watch", outcome["operation_id"], "--json")
    assert json.loads(watched.stdout.splitlines()[-1])["state"] == "completed"
    newest = say(installation, "ops", "watch")
    assert "completed" in newest.stderr
    again = say(installation, "ops", "cancel", outcome["operation_id"])
    assert "nothing to cancel" in again.stderr


@pytest.mark.xdist_group("cli")
def test_a_strategy_shows_as_trained_once_a_model_exists(trained: tuple[Installation, Any]) -> None:
    installation, _ = trained
    status = {row["name"]: row["status"] for row in ask(installation, "strategies", "list")}
    bundled = {path.stem for path in MOMENTUM.parent.glob("*.yaml")}
    assert status == dict.fromkeys(bundled, "untrained") | {MOMENTUM.stem: "trained"}


@pytest.mark.xdist_group("cli")
def test_models_are_listed_newest_first(trained: tuple[Installation, Any]) -> None:
    installation, _ = trained
    versions = [model["version"] for model in ask(installation, "models", "list")]
    assert versions == sorted(versions, reverse=True)


@pytest.mark.xdist_group("cli")
def test_the_doctor_finds_everything_in_order(trained: tuple[Installation, Any]) -> None:
    installation, _ = trained
    findings = ask(installation, "doctor")
    assert {finding["health"] for finding in findings} == {"ok"}
    subjects = [finding["subject"] for finding in findings]
    assert {"python", "torch", "device cpu", "database", "broker", "market data"} <= set(subjects)


def test_the_command_line_starts_without_torch_or_pandas() -> None:
    code = "import sys, ktrdr.cli.main; print({'torch', 'pandas', 'sqlalchemy'} & set(sys.modules))"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "set()"


def test_a_setting_that_is_wrong_is_named(tmp_path: Path) -> None:
    installation = Installation(tmp_path)
    installation.variables["KTRDR_SLOTS"] = "many"
    assert "KTRDR_SLOTS" in say(installation, "train", str(MOMENTUM), status=1).stderr
