"""The strategies in docs/strategy.md are valid: a user may copy each of them."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from ktrdr.features.memberships import MEMBERSHIPS
from ktrdr.labels import LABELS
from ktrdr.losses import LOSSES
from ktrdr.networks import NETWORKS
from ktrdr.strategy import ParsedStrategy, parse_strategy

PAGE = (Path(__file__).parents[2] / "docs" / "strategy.md").read_text()
EXAMPLE, *CHANGES = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)


def with_change(base: Any, change: Any) -> Any:
    """Return the base with a change merged in, in which null takes a key away."""
    if not isinstance(base, dict) or not isinstance(change, dict):
        return change
    merged = base | {key: with_change(base.get(key), value) for key, value in change.items()}
    return {key: value for key, value in merged.items() if value is not None}


def parse(text: str) -> ParsedStrategy:
    return parse_strategy(text, source="docs/strategy.md", strict=True)


def test_the_complete_example_is_valid_and_has_the_features_it_shows() -> None:
    assert parse(EXAMPLE).strategy.feature_plan.feature_ids == (
        "1h_rsi_low",
        "1h_rsi_middle",
        "1h_rsi_high",
        "1h_macd_histogram_near_zero",
        "1h_macd.line_raw",
    )


@pytest.mark.parametrize("change", CHANGES, ids=range(len(CHANGES)))
def test_every_change_to_the_example_is_valid(change: str) -> None:
    changed = with_change(yaml.safe_load(EXAMPLE), yaml.safe_load(change))
    assert parse(yaml.safe_dump(changed, sort_keys=False)).warnings == ()


@pytest.mark.parametrize(
    "registry", [LABELS, LOSSES, MEMBERSHIPS, NETWORKS], ids=lambda registry: registry.kind
)
def test_every_registered_name_is_on_the_page(registry: Any) -> None:
    assert [name for name in registry.names() if f"`{name}`" not in PAGE] == []
