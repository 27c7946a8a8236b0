"""The examples for service managers say what the program understands."""

import plistlib
import re
from pathlib import Path

import pytest

from ktrdr.settings import SECRETS, Settings, load_settings

DEPLOY = Path(__file__).parents[2] / "deploy"
UNITS = sorted((DEPLOY / "systemd").glob("*.service"))
EXAMPLES = sorted((DEPLOY / "systemd").glob("*.env.example"))
PLIST = DEPLOY / "launchd" / "dev.ktrdr.host-agent.plist"

NAMES = {f"KTRDR_{name.upper()}" for name in Settings.model_fields}
NAMES |= {f"KTRDR_{name.upper()}_FILE" for name in SECRETS}


def values_of(example: Path) -> dict[str, str]:
    """Return the variables of an environment file."""
    lines = example.read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


@pytest.mark.parametrize("file", [*UNITS, *EXAMPLES, PLIST], ids=lambda file: file.name)
def test_every_variable_that_an_example_names_is_a_setting(file: Path) -> None:
    named = set(re.findall(r"KTRDR_[A-Z_]+[A-Z]", file.read_text()))
    assert named
    assert named <= NAMES


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda file: file.name)
def test_the_values_of_an_example_are_valid(example: Path) -> None:
    load_settings(
        **{name.removeprefix("KTRDR_").lower(): value for name, value in values_of(example).items()}
    )


def test_service_managers_wait_longer_than_an_agent_drains() -> None:
    [unit] = [unit.read_text() for unit in UNITS if "host-agent" in unit.name]
    limit = re.search(r"^TimeoutStopSec=(\d+)$", unit, re.MULTILINE)
    assert limit is not None
    assert "KillMode=mixed" in unit
    drain = values_of(DEPLOY / "systemd" / "host-agent.env.example")["KTRDR_DRAIN_S"]
    assert int(limit[1]) >= int(drain) + 15
    plist = plistlib.loads(PLIST.read_bytes())
    assert plist["ExitTimeOut"] >= int(plist["EnvironmentVariables"]["KTRDR_DRAIN_S"]) + 15


def test_the_plist_says_what_to_run_and_to_keep_it_running() -> None:
    plist = plistlib.loads(PLIST.read_bytes())
    assert plist["ProgramArguments"][0].endswith("/host-agent")
    assert plist["KeepAlive"] == {"SuccessfulExit": False}
