"""Everything fails at once while many train: the short form of ``make chaos``."""

import os
import sys
from pathlib import Path

import pytest

from tests.broker.node import PrivateNode
from tests.e2e.storm import run

pytestmark = [
    pytest.mark.broker,
    pytest.mark.fault,
    pytest.mark.xdist_group("storm"),
    pytest.mark.timeout(400),
]

SEEDS = range(1, 1 + int(os.environ.get("KTRDR_TEST_STORMS", "1")))


def say(line: str) -> None:
    """Leave it to pytest, which shows it when the test fails."""
    sys.stdout.write(f"{line}\n")


@pytest.mark.parametrize("seed", SEEDS)
def test_nothing_is_lost_doubled_stuck_or_left_when_everything_fails_at_once(
    seed: int, tmp_path: Path, private_node: PrivateNode
) -> None:
    tally = run(tmp_path, private_node, seed=seed, jobs=8, seconds=8.0, say=say)
    assert sum(tally.faults.values()) > 3
