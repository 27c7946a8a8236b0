"""Strategies by name."""

from pathlib import Path

import pytest

from ktrdr.errors import StrategyError
from ktrdr.strategy import StrategyDirectory


@pytest.fixture
def directory(tmp_path: Path) -> StrategyDirectory:
    for name in ("momentum.yaml", "reversal.yml", "notes.txt"):
        (tmp_path / name).write_text("name: x\n")
    return StrategyDirectory(tmp_path)


def test_strategies_are_found_by_name_file_name_and_path(directory: StrategyDirectory) -> None:
    momentum = directory.root / "momentum.yaml"
    assert directory.find("momentum") == momentum
    assert directory.find("momentum.yaml") == momentum
    assert directory.find(momentum) == momentum
    assert [path.name for path in directory.list()] == ["momentum.yaml", "reversal.yml"]


def test_an_unknown_name_is_an_error_that_says_what_there_is(directory: StrategyDirectory) -> None:
    with pytest.raises(StrategyError) as caught:
        directory.find("momentun")
    assert "has momentum, reversal" in str(caught.value)
    assert caught.value.problems[0].suggestion == "momentum"


def test_a_directory_that_is_not_there_has_no_strategies(tmp_path: Path) -> None:
    nowhere = StrategyDirectory(tmp_path / "nowhere")
    assert nowhere.list() == ()
    with pytest.raises(StrategyError, match="has no strategies"):
        nowhere.find("anything")
