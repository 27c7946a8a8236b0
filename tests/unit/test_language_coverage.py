"""docs/strategies.md: current, and with an example of every part of the language."""

from pathlib import Path

from ktrdr.language.coverage import examples_in, page, without_example

ROOT = Path(__file__).parents[2]


def test_the_page_is_current_and_nothing_is_without_an_example() -> None:
    examples = examples_in(ROOT / "strategies")
    assert without_example(examples) == []
    # If this fails: python -m ktrdr.language.coverage docs
    assert (ROOT / "docs" / "strategies.md").read_text() == page(examples)


def test_what_no_example_uses_is_told() -> None:
    examples = examples_in(ROOT / "strategies")
    few = {name: examples[name] for name in ("eurusd_momentum", "googl_daily")}
    missing = without_example(few)
    assert "Networks: lstm" in missing
    assert "Indicators: rsi" not in missing
    assert "training.optimizer: sgd" in missing
    assert "| `lstm` | Long short-term memory |  |" in page(few)
