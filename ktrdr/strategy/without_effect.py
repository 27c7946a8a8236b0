"""Keys that are known and do nothing."""

from collections.abc import Mapping
from typing import Any

from ktrdr.strategy.findings import Findings
from ktrdr.strategy.sections import Section
from ktrdr.strategy.yaml_source import Path


def meaningful(model: type[Section], data: object, path: Path, findings: Findings) -> Any:
    """Return a section without the keys that have no effect, each of which gets a warning."""
    if not isinstance(data, Mapping):
        return data
    for key in data:
        if reason := model.without_effect.get(key):
            findings.warning((*path, key), f"has no effect: {reason}")
    return {key: value for key, value in data.items() if key not in model.without_effect}
