"""Which example uses what of the language: ``docs/strategies.md``, from the registries and ``strategies/``.

``python -m ktrdr.language.coverage [--check] docs``, in the repository, writes it, or tells that it is stale.
"""

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias, get_args

from ktrdr.docstrings import describe
from ktrdr.events import generated
from ktrdr.features.indicators import INDICATORS
from ktrdr.features.memberships import MEMBERSHIPS
from ktrdr.labels import LABELS
from ktrdr.losses import LOSSES
from ktrdr.networks import NETWORKS
from ktrdr.registry import Registry
from ktrdr.strategy import StrategyDirectory, load_strategy
from ktrdr.strategy.context_section import CONTEXT_SECTIONS
from ktrdr.strategy.sections import (
    DecisionsSection,
    EarlyStoppingSection,
    InputSection,
    SchedulerSection,
    SymbolsSection,
    TimeframesSection,
)
from ktrdr.strategy.strategy import Optimizer, ParsedStrategy

_NAME = "strategies.md"
_HEAD = """\
# Examples, and what they show

<!-- Generated: python -m ktrdr.language.coverage docs -->

Each file in `strategies/` runs as it is, on the bars in `data/`: `ktrdr train NAME`.
`ktrdr strategies explain NAME` says what it trains.
How strategies are written: [strategy.md](strategy.md).
"""

Examples: TypeAlias = Mapping[str, ParsedStrategy]
Uses: TypeAlias = Callable[[ParsedStrategy], Iterable[str]]


def main(arguments: list[str] | None = None) -> int:
    """Run the command."""
    content = page(examples_in(Path("strategies")))
    return generated.run("ktrdr.language.coverage", {_NAME: content}, arguments, owned=_NAME)


def examples_in(directory: Path) -> dict[str, ParsedStrategy]:
    """Return the strategies of a directory by name."""
    return {path.stem: load_strategy(path) for path in StrategyDirectory(directory).list()}


def page(examples: Examples) -> str:
    """Return the page, in Markdown."""
    parts = [_HEAD, _table(("example", "what it is"), _described(examples))]
    for title, registry, uses in _REGISTERED:
        used = _used_in(examples, uses)
        own = [name for name in registry.names() if registry.plugin_of(name) is None]
        rows = [(f"`{name}`", describe(registry.get(name)).summary, used.get(name, "")) for name in own]
        parts += [f"## {title}\n", _table(("name", "what it is", "used by"), rows)]
    rows = []
    for key, names, uses in _CHOICES:
        used = _used_in(examples, uses)
        rows += [(f"`{key}`", f"`{name}`", used.get(name, "")) for name in names]
    parts += ["## Choices\n", _table(("key", "value", "used by"), rows)]
    return "\n".join(parts)


def without_example(examples: Examples) -> list[str]:
    """Return what no example uses, as ``indicators: rsi``."""
    missing = []
    for title, registry, uses in _REGISTERED:
        used = _used_in(examples, uses)
        own = (name for name in registry.names() if registry.plugin_of(name) is None)
        missing += [f"{title}: {name}" for name in own if name not in used]
    for key, names, uses in _CHOICES:
        used = _used_in(examples, uses)
        missing += [f"{key}: {name}" for name in names if name not in used]
    return missing


def _described(examples: Examples) -> list[tuple[str, str]]:
    return [
        (f"[`{name}`](../strategies/{name}.yaml)", parsed.strategy.description or "")
        for name, parsed in examples.items()
    ]


def _used_in(examples: Examples, uses: Uses) -> dict[str, str]:
    used: dict[str, list[str]] = {}
    for example, parsed in examples.items():
        for name in dict.fromkeys(uses(parsed)):
            used.setdefault(name, []).append(f"`{example}`")
    return {name: ", ".join(found) for name, found in used.items()}


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *([cell.replace("|", "\\|") for cell in row] for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _memberships(parsed: ParsedStrategy) -> Iterable[str]:
    columns = parsed.strategy.feature_plan.columns
    return [MEMBERSHIPS.name_of(type(each.membership)) for each in columns if each.membership is not None]


def _providers(parsed: ParsedStrategy) -> Iterable[str]:
    entries: Any = parsed.effective.get("context_data") or ()
    return [entry["provider"] for entry in entries]


def _at(*path: str) -> Uses:
    def uses(parsed: ParsedStrategy) -> Iterable[str]:
        here: Any = parsed.effective
        for key in path:
            here = here.get(key) if isinstance(here, Mapping) else None
        return [here] if isinstance(here, str) else []

    return uses


def _choices(section: type[Any], key: str) -> list[str]:
    """Return the values that a section allows for a key."""
    schema = section.model_json_schema()["properties"][key]
    return [name for each in (schema, *schema.get("anyOf", ())) for name in each.get("enum", ())]


_REGISTERED: Sequence[tuple[str, Registry[Any], Uses]] = (
    (
        "Indicators",
        INDICATORS,
        lambda parsed: [
            INDICATORS.name_of(type(each)) for each in parsed.strategy.feature_plan.indicators.values()
        ],
    ),
    ("Memberships", MEMBERSHIPS, _memberships),
    ("Labels", LABELS, lambda parsed: [parsed.strategy.label_source]),
    ("Networks", NETWORKS, lambda parsed: [parsed.strategy.model_type]),
    ("Losses", LOSSES, lambda parsed: [LOSSES.name_of(type(parsed.strategy.training.loss))]),
)

_CHOICES: Sequence[tuple[str, Sequence[str], Uses]] = (
    (
        "training_data.symbols.mode",
        _choices(SymbolsSection, "mode"),
        _at("training_data", "symbols", "mode"),
    ),
    (
        "training_data.timeframes.mode",
        _choices(TimeframesSection, "mode"),
        _at("training_data", "timeframes", "mode"),
    ),
    ("context_data.*.provider", list(CONTEXT_SECTIONS), _providers),
    (
        "nn_inputs.*.normalization",
        _choices(InputSection, "normalization"),
        lambda parsed: [
            each.normalization for each in parsed.strategy.feature_plan.columns if each.membership is None
        ],
    ),
    (
        "training.optimizer",
        list(get_args(Optimizer)),
        lambda parsed: [parsed.strategy.training.optimizer],
    ),
    (
        "training.lr_scheduler.type",
        _choices(SchedulerSection, "type"),
        lambda parsed: [each.type for each in (parsed.strategy.training.lr_scheduler,) if each],
    ),
    (
        "training.early_stopping.monitor",
        _choices(EarlyStoppingSection, "monitor"),
        lambda parsed: [each.monitor for each in (parsed.strategy.training.early_stopping,) if each],
    ),
    (
        "decisions.output_format",
        _choices(DecisionsSection, "output_format"),
        lambda parsed: [parsed.strategy.decisions.output_format],
    ),
)


if __name__ == "__main__":
    sys.exit(main())
