"""What agents of earlier versions said, told to the backend of today."""

from pathlib import Path

import pytest

from tests.golden.journal import load
from tests.golden.replay import database_of, journals, replay


@pytest.mark.parametrize("journal", journals(), ids=lambda path: path.stem)
async def test_a_recorded_journal_leaves_the_same_database_byte_for_byte(
    journal: Path, tmp_path: Path
) -> None:
    left = await replay(load(journal), tmp_path)
    # If it is to be another from now on: python -m tests.golden.replay, and read what has changed.
    assert left.splitlines() == database_of(journal).read_text().splitlines()


async def test_a_word_that_is_missing_from_a_journal_shows(tmp_path: Path) -> None:
    journal = journals()[0]
    steps = load(journal)
    first_model = next(step for step in steps if "model_ready" in (step.routing_key or ""))
    repeated = [step for step in steps if step.message != first_model.message]
    assert await replay(repeated, tmp_path) != database_of(journal).read_text()
