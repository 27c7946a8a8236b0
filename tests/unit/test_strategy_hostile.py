"""What a strategy file must never do: crash the reader, or slip past the checks."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from ktrdr.errors import Problem, StrategyError
from ktrdr.strategy import parse_strategy

STRATEGIES = Path(__file__).parents[2] / "strategies"
SAMPLE = (STRATEGIES / "eurusd_momentum.yaml").read_text()


def refused(text: str, overrides: dict[str, Any] | None = None) -> tuple[Problem, ...]:
    with pytest.raises(StrategyError) as caught:
        parse_strategy(text, source="s.yaml", overrides=overrides)
    return caught.value.problems


def changed(old: str, new: str) -> str:
    assert SAMPLE.count(old) == 1
    return SAMPLE.replace(old, new)


@pytest.mark.parametrize("opening", ["[", "{a: ", "- ", "? "])
def test_nesting_that_would_overflow_the_stack_is_refused(opening: str) -> None:
    assert "expands to more" in refused(opening * 100_000)[0].message


def test_what_is_too_much_is_refused_before_anything_is_made_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def compose(loader: yaml.CSafeLoader) -> None:
        raise AssertionError("it takes ten times as long")

    monkeypatch.setattr(yaml.CSafeLoader, "get_single_node", compose)
    assert "expands to more" in refused("a: [" + "1," * 30_000 + "1]")[0].message


def test_a_lone_surrogate_is_refused_at_its_place() -> None:
    (found,) = refused("name: x\nversion: \ud800\n")
    assert (found.line, found.column) == (2, 10)


@pytest.mark.parametrize(
    "value",
    ["!!int x", "!!float x", "!!bool maybe", "!!timestamp x", "1" + "0" * 400, "9" * 5000],
)
def test_a_scalar_that_cannot_be_what_it_says_is_refused_at_its_line(value: str) -> None:
    (found,) = refused(changed("  epochs: 60", f"  epochs: {value}"))
    assert found.path == "training.epochs"
    assert found.line is not None
    assert len(found.message) < 120


def test_a_membership_of_a_number_beyond_any_float_is_refused() -> None:
    refused(changed("[35, 50, 65]", "[35, 50, 1" + "0" * 400 + "]"))


@pytest.mark.parametrize(
    ("dates", "path"),
    [
        ("start_date: '2017-13-45'", "training_data.start_date"),
        ("end_date: '2017-02-30'", "training_data.end_date"),
        ("start_date: 2018-01-01\n  end_date: 2017-01-01", "training_data.end_date"),
    ],
)
def test_dates_that_are_none_or_in_the_wrong_order_are_refused(dates: str, path: str) -> None:
    (found,) = refused(changed("training_data:\n", f"training_data:\n  {dates}\n"))
    assert found.path == path


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 10**400, "\ud800", {1}, b"x", {1: 2}])
def test_an_override_that_is_not_json_is_refused(value: object) -> None:
    assert refused(SAMPLE, {"description": value})[0].path == "description"


def test_an_endlessly_nested_override_is_refused() -> None:
    value: list[Any] = []
    value.append(value)
    assert "nested" in refused(SAMPLE, {"description": value})[0].message


def test_an_unknown_top_level_key_does_not_hide_the_other_problems() -> None:
    text = changed("  epochs: 60", "  epoch: 60") + "decision: 1\n"
    assert {found.path for found in refused(text)} == {"training.epoch", "decision"}


def test_a_misspelt_choice_has_the_nearest_one() -> None:
    (found,) = refused(changed("monitor: val_loss", "monitor: val_lss"))
    assert found.suggestion == "val_loss"


def test_a_timeframe_that_no_feature_uses_is_a_warning() -> None:
    text = (
        (STRATEGIES / "eurusd_two_timeframes.yaml")
        .read_text()
        .replace("list: [1h, 4h]", "list: [1h, 4h, 1d]")
    )
    text = text.replace("timeframes: all }", "timeframes: [1h, 4h] }")
    (warning,) = parse_strategy(text, source="s.yaml").warnings
    assert "no feature uses 1d" in warning.message
