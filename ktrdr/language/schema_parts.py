"""Pieces of the JSON Schema of the strategy language."""

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from pydantic import BaseModel

from ktrdr.docstrings import describe, field_descriptions, prose
from ktrdr.parameters import Parameters
from ktrdr.strategy.sections import Section

JsonSchema: TypeAlias = dict[str, Any]


def section_schema(section: type[Section], of_keys: Mapping[str, JsonSchema] | None = None) -> JsonSchema:
    """Return the schema of a section.

    Args:
        section: the model that checks it.
        of_keys: schemas of keys whose values another model checks.

    Raises:
        TypeError: such a key is not among ``of_keys``.
    """
    given = of_keys or {}
    schema = section.model_json_schema()
    properties = {}
    for name, of_key in _properties(section, Section, schema).items():
        if "object" in _types(of_key) and name not in given:
            raise TypeError(f"{section.__name__}.{name}: there is no schema of what is in it")
        said = {"description": of_key["description"]} if "description" in of_key else {}
        properties[name] = {**said, **given[name]} if name in given else of_key
    for name, reason in section.without_effect.items():
        properties[name] = _without_effect(reason)
    for old, new in section.former_names.items():
        properties[old] = _former(properties[new], new)
    return _mapping(prose(section.__doc__ or ""), properties, schema.get("required", []))


def parameters_schema(kind: type[Parameters], beside: Mapping[str, Any]) -> JsonSchema:
    """Return the schema of an implementation's parameters.

    Args:
        kind: the implementation.
        beside: further keys that stand beside them.
    """
    schema = kind.model_json_schema()
    own = _properties(kind, Parameters, schema)
    properties = {**beside, **own}
    for old, new in kind.former_names.items():
        properties[old] = _former(own[new], new)
    for old, reason in kind.ignored_names.items():
        properties[old] = _without_effect(reason)
    formerly = set(kind.former_names.values())
    required = [name for name in schema.get("required", []) if name not in formerly]
    return _mapping(describe(kind).text, properties, required)


def choice(names: Mapping[str, type], aliases: Sequence[str]) -> JsonSchema:
    """Return the schema of a name, with what each is for an editor's list."""
    descriptions = [describe(kind).summary for kind in names.values()]
    return {
        "enum": [*names, *aliases],
        "enumDescriptions": [*descriptions, *("An alias." for _ in aliases)],
    }


def when(key: str, values: Sequence[str], then: JsonSchema, *, by_default: bool = False) -> JsonSchema:
    """Return the schema that asks for something where a key has one of these values, or is not there."""
    condition: JsonSchema = {"properties": {key: {"enum": list(values)}}}
    if not by_default:
        condition["required"] = [key]
    return {"if": condition, "then": then}


def also_null(schema: JsonSchema) -> JsonSchema:
    """Return the schema of a value that may be left empty."""
    return {**schema, "type": [schema["type"], "null"]}


def reference(name: str) -> JsonSchema:
    """Return a reference to a definition."""
    return {"$ref": f"#/definitions/{name}"}


def _properties(model: type[BaseModel], base: type[BaseModel], schema: JsonSchema) -> dict[str, JsonSchema]:
    said = field_descriptions(model, base)
    by_alias = {field.alias or name: name for name, field in model.model_fields.items()}
    properties = {}
    for name, of_key in schema.get("properties", {}).items():
        described = said.get(by_alias[name])
        plain = {key: value for key, value in of_key.items() if key != "title" and value is not None}
        properties[name] = {**({"description": described} if described else {}), **plain}
    return properties


def _types(schema: JsonSchema) -> list[object]:
    return [schema.get("type"), *(each.get("type") for each in schema.get("anyOf", []))]


def _former(schema: JsonSchema, name: str) -> JsonSchema:
    note = f"An old name; write `{name}`."
    return {**schema, "description": note, "deprecated": True, "deprecationMessage": note}


def _without_effect(reason: str) -> JsonSchema:
    note = f"Has no effect: {reason}."
    return {"description": note, "deprecated": True, "deprecationMessage": note}


def _mapping(description: str, properties: Mapping[str, Any], required: Sequence[str]) -> JsonSchema:
    return {
        "type": "object",
        **({"description": description} if description else {}),
        **({"required": list(required)} if required else {}),
        "properties": dict(properties),
        "additionalProperties": False,
    }
