"""A JSON Schema of the strategy language, for editors; from the sections and registries that check a file.

``python -m ktrdr.language.schema [--check] DIR`` writes ``strategy.json``, or tells that it is not current.
What one key says of another (ids, sums, orders) is beyond a schema: `ktrdr strategies validate` checks that.
It is draft 7, which editors know best; names are in lower case, as editors do not fold them.
"""

import json
import sys
from collections.abc import Iterable
from typing import Any, get_args

from ktrdr.docstrings import prose
from ktrdr.events import generated
from ktrdr.features.indicators import INDICATORS
from ktrdr.features.memberships import MEMBERSHIPS
from ktrdr.labels import LABELS
from ktrdr.language.schema_parts import (
    JsonSchema,
    also_null,
    choice,
    parameters_schema,
    reference,
    section_schema,
    when,
)
from ktrdr.losses import LOSSES
from ktrdr.networks import NETWORKS
from ktrdr.parameters import Parameters
from ktrdr.registry import Registry
from ktrdr.strategy.context_section import CONTEXT_SECTIONS
from ktrdr.strategy.sections import (
    CostModelSection,
    DateRangeSection,
    DecisionsSection,
    EarlyStoppingSection,
    FiltersSection,
    InputSection,
    ModelSection,
    OptimizerSection,
    SchedulerSection,
    SplitSection,
    StrategySection,
    SymbolsSection,
    TimeframesSection,
    TrainingDataSection,
    TrainingSection,
)
from ktrdr.strategy.strategy import Optimizer

_NAME = "strategy.json"


def main(arguments: list[str] | None = None) -> int:
    """Run the command."""
    content = as_text(language_schema(with_plugins=False))
    return generated.run("ktrdr.language.schema", {_NAME: content}, arguments, owned=_NAME)


def as_text(schema: JsonSchema) -> str:
    """Return it as it stands in a file."""
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


def language_schema(*, with_plugins: bool = True) -> JsonSchema:
    """Return the schema of a strategy file.

    Args:
        with_plugins: whether the implementations of other distributions that are installed here are in it.
    """
    known = _Known(with_plugins=with_plugins)
    top = section_schema(
        StrategySection,
        {
            "version": {"type": ["string", "number"], "default": "3.0"},
            "training_data": _training_data(),
            "context_data": also_null({"type": "array", "items": reference("context")}),
            "indicators": {"type": "object", "additionalProperties": reference("indicator")},
            "fuzzy_sets": {"type": "object", "additionalProperties": reference("fuzzy_set")},
            "nn_inputs": {"type": "array", "minItems": 1, "items": reference("input")},
            "model": reference("model"),
            "training": reference("training"),
            "decisions": _decisions(),
        },
    )
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        **top,
        "title": "Strategy of ktrdr",
        "definitions": {
            "context": _context(),
            "indicator": _indicator(known),
            "fuzzy_set": _fuzzy_set(),
            "membership": _membership(known),
            "input": _input(),
            "model": _model(known),
            "training": _training(known),
            "labels": _labels(known),
        },
    }


class _Known:
    """What there is, with or without plug-ins."""

    def __init__(self, *, with_plugins: bool) -> None:
        self._with_plugins = with_plugins

    def of(self, registry: Registry[Any]) -> Iterable[tuple[list[str], type[Parameters]]]:
        """Return the spellings of each implementation, the name first."""
        for name, implementation in registry:
            if self._with_plugins or registry.plugin_of(name) is None:
                yield [name, *registry.aliases_of(name)], implementation

    def names(self, registry: Registry[Any], **more: Any) -> JsonSchema:
        """Return a schema of all spellings, each with what it is."""
        return {
            **choice({names[0]: kind for names, kind in self.of(registry)}, self._aliases(registry)),
            **more,
        }

    def _aliases(self, registry: Registry[Any]) -> list[str]:
        return [alias for names, _ in self.of(registry) for alias in names[1:]]


def _training_data() -> JsonSchema:
    return section_schema(
        TrainingDataSection,
        {
            "symbols": section_schema(
                SymbolsSection, {"selection_criteria": {"type": ["object", "null"], "deprecated": True}}
            ),
            "timeframes": section_schema(TimeframesSection),
            "date_range": also_null(section_schema(DateRangeSection)),
        },
    )


def _context() -> JsonSchema:
    of_provider = [
        when("provider", [name], {**section_schema(model), "required": ["provider"]})
        for name, model in CONTEXT_SECTIONS.items()
    ]
    return {
        "type": "object",
        "description": "Series beside the bars that indicators may be computed on.",
        "required": ["provider"],
        "properties": {"provider": {"enum": list(CONTEXT_SECTIONS)}},
        "allOf": of_provider,
    }


def _indicator(known: _Known) -> JsonSchema:
    beside = {"type": True, "data_source": True}
    return {
        "type": "object",
        "description": "An indicator: its type, and parameters where they are not the default.",
        "required": ["type"],
        "properties": {
            "type": known.names(INDICATORS),
            "data_source": {"type": "string", "description": "A series of context_data instead of the bars."},
        },
        "allOf": [
            when("type", names, parameters_schema(kind, beside)) for names, kind in known.of(INDICATORS)
        ],
    }


def _fuzzy_set() -> JsonSchema:
    return {
        "type": "object",
        "description": "An indicator's output, and memberships of its values by names of your own.",
        "required": ["indicator"],
        "minProperties": 2,
        "properties": {
            "indicator": {"type": "string", "description": "An id, or one of its outputs: `macd.histogram`."}
        },
        "additionalProperties": reference("membership"),
    }


def _membership(known: _Known) -> JsonSchema:
    numbers = {"type": "array", "items": {"type": "number"}}
    of_type = []
    for names, kind in known.of(MEMBERSHIPS):
        count = len(kind.model_fields)
        said = f"{', '.join(kind.model_fields)}: {prose(kind.__doc__ or '')}"
        parameters = {"minItems": count, "maxItems": count, "description": said}
        of_type.append(when("type", names, {"properties": {"parameters": parameters}}))
    return {
        "description": "How far a value belongs to the set: a list is a triangle; else type and parameters.",
        "type": ["array", "object"],
        "if": {"type": "array"},
        "then": {**numbers, "minItems": 3, "maxItems": 3},
        "else": {
            "required": ["type", "parameters"],
            "properties": {"type": known.names(MEMBERSHIPS), "parameters": numbers},
            "additionalProperties": False,
            "allOf": of_type,
        },
    }


def _input() -> JsonSchema:
    some = {"type": "array", "minItems": 1, "items": {"type": "string"}}
    timeframes = {
        "description": "`all`, or some of training_data.timeframes.",
        "type": ["string", "array"],
        "if": {"type": "array"},
        "then": some,
    }
    return {
        **section_schema(InputSection, {"timeframes": timeframes}),
        "oneOf": [{"required": ["fuzzy_set"]}, {"required": ["raw_indicator"]}],
        "dependencies": {"normalization": ["raw_indicator"]},
    }


def _model(known: _Known) -> JsonSchema:
    nothing = dict.fromkeys(ModelSection.without_effect, True)
    return {
        **section_schema(
            ModelSection,
            {
                "type": known.names(NETWORKS, default="mlp"),
                "architecture": {"type": "object"},
                "training": reference("training"),
            },
        ),
        "allOf": [
            when(
                "type",
                names,
                {"properties": {"architecture": parameters_schema(kind, nothing)}},
                by_default=names[0] == "mlp",
            )
            for names, kind in known.of(NETWORKS)
        ],
    }


def _training(known: _Known) -> JsonSchema:
    optimizers = {"enum": list(get_args(Optimizer))}
    return section_schema(
        TrainingSection,
        {
            "loss": {"anyOf": [known.names(LOSSES), _loss(known)]},
            "data_split": also_null(section_schema(SplitSection)),
            "optimizer": {
                "default": "adam",
                "anyOf": [optimizers, section_schema(OptimizerSection, {"type": optimizers})],
            },
            "early_stopping": {
                "anyOf": [{"type": ["boolean", "null"]}, section_schema(EarlyStoppingSection)]
            },
            "lr_scheduler": {
                "anyOf": [
                    {"type": ["boolean", "null"]},
                    section_schema(SchedulerSection)["properties"]["type"],
                    section_schema(SchedulerSection),
                ]
            },
            "labels": reference("labels"),
        },
    )


def _loss(known: _Known) -> JsonSchema:
    return {
        "type": "object",
        "required": ["type"],
        "properties": {"type": known.names(LOSSES)},
        "allOf": [
            when("type", names, parameters_schema(kind, {"type": True})) for names, kind in known.of(LOSSES)
        ],
    }


def _labels(known: _Known) -> JsonSchema:
    return {
        "type": "object",
        "description": "What is to be learnt: a source, and parameters where they are not the default.",
        "properties": {"source": known.names(LABELS, default="zigzag")},
        "allOf": [
            when("source", names, parameters_schema(kind, {"source": True}), by_default=names[0] == "zigzag")
            for names, kind in known.of(LABELS)
        ],
    }


def _decisions() -> JsonSchema:
    return section_schema(
        DecisionsSection,
        {
            "cost_model": also_null(section_schema(CostModelSection)),
            "filters": section_schema(FiltersSection),
        },
    )


if __name__ == "__main__":
    sys.exit(main())
