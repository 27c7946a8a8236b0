"""What strategies can name, as the registries and their parameters say it: nothing is written down twice."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import JsonValue, ValidationError

from ktrdr.docstrings import describe, field_descriptions
from ktrdr.features.indicators import INDICATORS, Indicator
from ktrdr.features.memberships import MEMBERSHIPS
from ktrdr.labels import LABELS, LabelSource
from ktrdr.language.allowed import allowed_values
from ktrdr.losses import LOSSES, Loss
from ktrdr.networks import NETWORKS
from ktrdr.parameters import Parameters
from ktrdr.registry import Registry

REGISTRIES: Mapping[str, Registry[Any]] = {
    "indicators": INDICATORS,
    "memberships": MEMBERSHIPS,
    "labels": LABELS,
    "networks": NETWORKS,
    "losses": LOSSES,
}
"""What each is called in the plural → what there is of it."""


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter of an implementation."""

    name: str
    required: bool
    default: JsonValue
    """None too for one that is required."""
    allowed: str
    """In words: ``whole number, 2 to 100``."""
    description: str = ""
    former_names: Sequence[str] = ()
    """Accepted with a warning."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One implementation that a strategy can name."""

    name: str
    aliases: Sequence[str]
    """Further spellings."""
    summary: str
    description: str
    source: str | None
    """The publication that it follows."""
    parameters: Sequence[Parameter]
    outputs: Sequence[str] = ()
    """Of an indicator with several, the primary one first."""
    warmup_bars: int | None = None
    """Of an indicator, with the defaults of its parameters."""
    classes: Sequence[str] = ()
    """Of a label."""
    output_format: str | None = None
    """``classification`` or ``regression``, of a label or a loss."""
    without_effect: Mapping[str, str] = field(default_factory=dict)
    """Parameters that older files have → why they are left out."""
    plugin: str | None = None
    """Distribution and version that it comes from; None for ktrdr's own."""


def entries(registry: Registry[Any]) -> list[Entry]:
    """Return everything that can be used, by name."""
    return [_entry(registry, name, implementation) for name, implementation in registry]


def entry(registry: Registry[Any], name: str) -> Entry:
    """Return one by its name or an alias.

    Raises:
        UnknownNameError: there is none.
        PluginError: it cannot be used.
    """
    return _entry(registry, registry.canonical(name), registry.get(name))


def parameters_of(implementation: type[Parameters]) -> list[Parameter]:
    """Return the parameters in the order in which they are declared."""
    schema = implementation.model_json_schema()
    said = field_descriptions(implementation, Parameters)
    required = schema.get("required", [])
    return [
        Parameter(
            name,
            name in required,
            of_name.get("default"),
            allowed_values(of_name),
            said.get(name, ""),
            [old for old, new in implementation.former_names.items() if new == name],
        )
        for name, of_name in schema.get("properties", {}).items()
    ]


def _entry(registry: Registry[Any], name: str, implementation: type[Parameters]) -> Entry:
    said = describe(implementation)
    plugin = registry.plugin_of(name)
    more: dict[str, Any] = {}
    if issubclass(implementation, Indicator):
        more = {"outputs": implementation.outputs, "warmup_bars": _warmup_by_default(implementation)}
    elif issubclass(implementation, LabelSource):
        kind = "classification" if implementation.classes else "regression"
        more = {"classes": implementation.classes, "output_format": kind}
    elif issubclass(implementation, Loss):
        more = {"output_format": implementation.output_format}
    return Entry(
        name=name,
        aliases=registry.aliases_of(name),
        summary=said.summary,
        description=said.text,
        source=said.source,
        parameters=parameters_of(implementation),
        without_effect=implementation.ignored_names,
        plugin=str(plugin) if plugin is not None else None,
        **more,
    )


def _warmup_by_default(implementation: type[Indicator]) -> int | None:
    try:
        return implementation().warmup_bars
    except ValidationError:  # a plug-in's may have parameters that are required
        return None
