"""Simulated worlds: the short form of ``make sim``, and what makes them worth believing."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.fault, pytest.mark.timeout(600), pytest.mark.xdist_group("simulation")]

ROOT = Path(__file__).parents[2]
WORLDS = ("-m", "tests.sim.simulation")
FORGETFUL = """
import sys
from host_agent.journal import ClaimFolder
from tests.sim.simulation import main

record = ClaimFolder.record

def record_and_forget(folder, announcement):
    record(folder, announcement)
    folder.remove()

ClaimFolder.record = record_and_forget
sys.exit(main())
"""
"""An agent whose results are gone as soon as they are made."""


def simulate(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "200"}
    return subprocess.run(
        [sys.executable, *arguments], env=environment, capture_output=True, text=True, check=False
    )


def test_every_promise_is_kept_in_worlds_where_everything_fails() -> None:
    worlds = simulate(*WORLDS, "--seeds", "3", "--at-once", "1")
    assert worlds.returncode == 0, worlds.stdout + worlds.stderr


@pytest.mark.long
def test_a_seed_tells_the_same_story_each_time() -> None:
    stories = [simulate(*WORLDS, "--seed", "5").stdout.splitlines() for _ in range(2)]
    fingerprints = {line for story in stories for line in story if "fingerprint" in line}
    assert len(fingerprints) == 1, stories


@pytest.mark.long
def test_an_agent_that_forgets_its_results_breaks_a_promise_in_the_first_world() -> None:
    world = simulate("-c", FORGETFUL, "--seed", "1")
    assert world.returncode == 1, world.stdout + world.stderr
    assert "again: make sim SEED=1" in world.stdout
