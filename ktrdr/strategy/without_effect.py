"""Keys that are known and do nothing, and keys by an older name."""

from collections.abc import Mapping
from typing import Any

from ktrdr.strategy.findings import Findings
from ktrdr.strategy.sections import Section
from ktrdr.strategy.yaml_source import Path


def meaningful(model: type[Section], data: object, path: Path, findings: Findings) -> Any:
    """Return a section by today's names, without keys that have no effect; each of both gets a warning."""
    if not isinstance(data, Mapping):
        return data
    for key in data:
        if reason := model.without_effect.get(key):
            findings.warning((*path, key), f"has no effect: {reason}")
        elif (name := model.former_names.get(key)) and name not in data:
            findings.warning((*path, key), f"is an old name; write '{name}'")
    return {
        model.former_names.get(key, key) if model.former_names.get(key) not in data else key: value
        for key, value in data.items()
        if key not in model.without_effect
    }
