"""How one implementation is written in a strategy file."""

from typing import Any

import yaml

from ktrdr.language.catalog import Entry, Parameter


def example_of(family: str, entry: Entry) -> str:
    """Return a piece of YAML that uses an implementation with its defaults, which a user may copy.

    Args:
        family: a key of `ktrdr.language.catalog.REGISTRIES`.
        entry: of that family.
    """
    values = {parameter.name: _value(parameter) for parameter in entry.parameters}
    document: dict[str, Any]
    match family:
        case "indicators":
            document = {"indicators": {f"my_{entry.name}": {"type": entry.name, **values}}}
        case "memberships":
            places = [10 * (number + 1) for number in range(len(values))]
            membership = {"type": entry.name, "parameters": places}
            document = {"fuzzy_sets": {"my_set": {"indicator": "my_rsi", "low": membership}}}
        case "labels":
            document = {"training": {"labels": {"source": entry.name, **values}}}
        case "networks":
            document = {"model": {"type": entry.name, "architecture": values}}
        case _:
            former = {parameter.name: parameter.former_names for parameter in entry.parameters}
            options = {former[name][0] if former[name] else name: value for name, value in values.items()}
            document = {"training": {"loss": entry.name, **options}}
    return yaml.safe_dump(document, sort_keys=False, default_flow_style=None, width=100)


def _value(parameter: Parameter) -> object:
    """Return the default, or something that may stand where a value must be given."""
    if not parameter.required:
        return parameter.default
    return [32, 16] if parameter.allowed.startswith("list") else 20
