"""``indicators``, ``fuzzy_sets`` and ``nn_inputs``: what the network is fed."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import JsonValue, ValidationError
from pydantic_core import ErrorDetails

from ktrdr.errors import PluginError, UnknownNameError
from ktrdr.features.indicators import INDICATORS, Indicator
from ktrdr.features.memberships import MEMBERSHIPS, Membership
from ktrdr.features.plan import FeatureColumn, FeaturePlan
from ktrdr.strategy.context_section import ContextChoice
from ktrdr.strategy.findings import Findings
from ktrdr.strategy.market_section import MarketChoice
from ktrdr.strategy.sections import InputSection
from ktrdr.strategy.wording import readable
from ktrdr.strategy.yaml_source import Path

_NAME_CHARACTERS = "letters, digits and _"


@dataclass(frozen=True, slots=True)
class _FuzzySet:
    indicator_id: str
    output: str
    memberships: Mapping[str, Membership]


def resolve_features(
    indicators: Mapping[str, JsonValue],
    fuzzy_sets: Mapping[str, JsonValue],
    inputs: list[Any],
    market: MarketChoice | None,
    context: ContextChoice,
    findings: Findings,
) -> FeaturePlan | None:
    """Check the three sections and return the features in the order of the inputs; None if wrong."""
    # A definition that is wrong is None: it is there, and what refers to it is not wrong as well.
    known = {name: _indicator(name, definition, context, findings) for name, definition in indicators.items()}
    sets = {name: _fuzzy_set(name, definition, known, findings) for name, definition in fuzzy_sets.items()}
    columns: list[FeatureColumn] = []
    for position, item in enumerate(inputs if not findings.is_wrong(("nn_inputs",)) else ()):
        path: Path = ("nn_inputs", position)
        made = _columns(item, path, known, sets, market, findings)
        there = {column.feature_id for column in columns}
        for column in made:
            if column.feature_id in there:
                findings.problem(path, f"makes {column.feature_id}, which an item before it makes too")
        columns += made
    _warn_unused(fuzzy_sets, inputs, known, columns, market, findings)
    if market is None or findings.problems:
        return None
    used = {column.indicator_id for column in columns}
    return FeaturePlan(
        base_timeframe=market.base_timeframe,
        indicators={name: made for name, made in known.items() if made is not None and name in used},
        columns=tuple(columns),
        sources={
            name: str(definition["data_source"])
            for name, definition in indicators.items()
            if name in used and isinstance(definition, dict) and "data_source" in definition
        },
    )


def _indicator(
    name: str, definition: JsonValue, context: ContextChoice, findings: Findings
) -> Indicator | None:
    path: Path = ("indicators", name)
    if "." in name or not name:
        findings.problem(path, f"the id of an indicator is of {_NAME_CHARACTERS}: a dot names an output")
        return None
    if not isinstance(definition, dict):
        findings.problem(path, "must be a mapping with a type and its parameters")
        return None
    if "type" not in definition:
        findings.problem((*path, "type"), f"is missing; one of: {', '.join(INDICATORS.names())}")
        return None
    if "data_source" in definition and (source := str(definition["data_source"])) not in context.entries:
        if context.is_complete:
            findings.unknown((*path, "data_source"), "series of context_data", source, list(context.entries))
        return None
    parameters = {key: value for key, value in definition.items() if key not in ("type", "data_source")}
    return findings.parameters(INDICATORS, definition["type"], parameters, path, (*path, "type"))


def _fuzzy_set(
    name: str, definition: JsonValue, indicators: Mapping[str, Indicator | None], findings: Findings
) -> _FuzzySet | None:
    path: Path = ("fuzzy_sets", name)
    if not isinstance(definition, dict):
        findings.problem(path, "must be a mapping with an indicator and memberships")
        return None
    if "indicator" not in definition:
        findings.problem((*path, "indicator"), "is missing: which indicator's values it is about")
        return None
    reference = definition["indicator"]
    output = definition.get("output")
    if isinstance(output, str) and isinstance(reference, str) and "." not in reference:
        reference = f"{reference}.{output}"
        findings.warning((*path, "output"), f"is an old form; write `indicator: {reference}`")
        definition = {key: value for key, value in definition.items() if key != "output"}
    target = _reference(reference, (*path, "indicator"), indicators, findings)
    named = {key: value for key, value in definition.items() if key != "indicator"}
    if not named:
        findings.problem(path, "has no memberships, as in `low: [0, 20, 40]`")
        return None
    memberships = {key: _membership(value, (*path, key), findings) for key, value in named.items()}
    if target is None:
        return None
    return _FuzzySet(*target, {key: made for key, made in memberships.items() if made is not None})


def _membership(definition: JsonValue, path: Path, findings: Findings) -> Membership | None:
    place = path
    type_name: JsonValue = "triangular"
    parameters: JsonValue = definition
    if isinstance(definition, dict):
        for key in definition:
            if key not in ("type", "parameters"):
                findings.unknown((*path, key), "key", key, ("type", "parameters"), is_key=True)
        for key in ("type", "parameters"):
            if key not in definition and not findings.is_wrong_within(path):
                findings.problem((*path, key), "is missing: a membership has a type and parameters")
        type_name, parameters = definition.get("type", "triangular"), definition.get("parameters")
        place = (*path, "parameters")
    numbers = _numbers(parameters)
    if numbers is None and not findings.is_wrong_within(path):
        findings.problem(place, "must be a list of numbers, or a mapping with type and parameters")
    try:
        implementation = MEMBERSHIPS.get(str(type_name))
        if numbers is not None and not findings.is_wrong((*path, "type")):
            return implementation.from_list(numbers)
    except UnknownNameError as error:
        findings.unknown((*path, "type"), MEMBERSHIPS.kind, str(type_name), error.available)
    except PluginError as error:
        findings.problem((*path, "type"), str(error))
    except ValidationError as error:
        findings.problem(place, "; ".join(map(_of_parameter, error.errors(include_url=False))))
    except ValueError as error:
        findings.problem(place, str(error))
    return None


def _of_parameter(detail: ErrorDetails) -> str:
    field = f"{detail['loc'][-1]}: " if detail["loc"] else ""
    return field + readable([detail])


def _numbers(parameters: JsonValue) -> list[float] | None:
    if not isinstance(parameters, list):
        return None
    numbers = [
        float(value) for value in parameters if isinstance(value, int | float) and not isinstance(value, bool)
    ]
    return numbers if len(numbers) == len(parameters) else None


def _reference(
    reference: object, path: Path, indicators: Mapping[str, Indicator | None], findings: Findings
) -> tuple[str, str] | None:
    """Resolve ``id`` or ``id.output``; without an output it is the primary one."""
    if not isinstance(reference, str):
        findings.problem(path, "must name an indicator, as in rsi_14 or macd.line")
        return None
    name, dot, output = reference.partition(".")
    if name not in indicators and findings.is_wrong(("indicators",)):
        return None
    if name not in indicators:
        findings.unknown(path, "indicator", name, list(indicators))
        return None
    indicator = indicators[name]
    if indicator is None:
        return None
    if not dot:
        return name, indicator.outputs[0] if indicator.outputs else ""
    if not indicator.outputs:
        findings.problem(path, f"{name} has a single output; write '{name}'")
        return None
    if output not in indicator.outputs:
        findings.unknown(path, f"output of {name}", output, indicator.outputs)
        return None
    return name, output


def _columns(
    item: object,
    path: Path,
    indicators: Mapping[str, Indicator | None],
    sets: Mapping[str, _FuzzySet | None],
    market: MarketChoice | None,
    findings: Findings,
) -> list[FeatureColumn]:
    section = findings.section(InputSection, item, path)
    if section is None:
        return []
    if (section.fuzzy_set is None) == (section.raw_indicator is None):
        if not findings.is_wrong_within(path):
            findings.problem(path, "must have exactly one of fuzzy_set and raw_indicator")
        return []
    timeframes = _timeframes(section.timeframes, (*path, "timeframes"), market, findings)
    columns: list[FeatureColumn] = []
    if section.raw_indicator is not None:
        target = _reference(section.raw_indicator, (*path, "raw_indicator"), indicators, findings)
        if target is not None:
            columns = [
                FeatureColumn(
                    f"{timeframe}_{section.raw_indicator}_raw",
                    timeframe,
                    *target,
                    normalization=section.normalization or "none",
                )
                for timeframe in timeframes
            ]
        return columns
    if section.normalization is not None:
        findings.problem((*path, "normalization"), "goes with raw_indicator only: memberships are 0 to 1")
    name = section.fuzzy_set or ""
    if name not in sets and findings.is_wrong(("fuzzy_sets",)):
        return []
    if name not in sets:
        findings.unknown((*path, "fuzzy_set"), "fuzzy set", name, list(sets))
        return []
    fuzzy_set = sets[name]
    if fuzzy_set is None:
        return []
    return [
        FeatureColumn(
            f"{timeframe}_{name}_{term}",
            timeframe,
            fuzzy_set.indicator_id,
            fuzzy_set.output,
            name,
            term,
            membership,
        )
        for timeframe in timeframes
        for term, membership in fuzzy_set.memberships.items()
    ]


def _timeframes(
    given: str | list[str], path: Path, market: MarketChoice | None, findings: Findings
) -> tuple[str, ...]:
    if market is None:
        return ()
    if given == "all":
        return market.timeframes
    names = [given] if isinstance(given, str) else given
    for position, name in enumerate(names):
        if name not in market.timeframes:
            place = path if isinstance(given, str) else (*path, position)
            findings.unknown(place, "timeframe of training_data", name, market.timeframes)
    return tuple(name for name in names if name in market.timeframes)


def _warn_unused(
    fuzzy_sets: Mapping[str, JsonValue],
    inputs: list[Any],
    indicators: Mapping[str, Indicator | None],
    columns: list[FeatureColumn],
    market: MarketChoice | None,
    findings: Findings,
) -> None:
    used_sets = {str(item.get("fuzzy_set")) for item in inputs if isinstance(item, Mapping)}
    for name in fuzzy_sets:
        if name not in used_sets:
            findings.warning(("fuzzy_sets", name), "is not used by nn_inputs")
    definitions = [definition for definition in fuzzy_sets.values() if isinstance(definition, dict)]
    references = [definition.get("indicator") for definition in definitions]
    references += [item.get("raw_indicator") for item in inputs if isinstance(item, Mapping)]
    if market is not None:
        idle = [name for name in market.timeframes if name not in {column.timeframe for column in columns}]
        for name in idle if columns else ():
            if name != market.base_timeframe:
                findings.warning(("training_data", "timeframes"), f"no feature uses {name}; it is not loaded")
    used = {str(reference).partition(".")[0] for reference in references}
    for name in indicators:
        if name not in used:
            findings.warning(("indicators", name), "is not used by any feature")
