"""What a JSON Schema allows, in a few words for people."""

import json
from collections.abc import Mapping
from typing import Any

_TYPES = {
    "integer": "whole number",
    "number": "number",
    "string": "text",
    "boolean": "true or false",
    "null": "null",
    "object": "mapping",
    "array": "list",
}


def allowed_values(schema: Mapping[str, Any]) -> str:
    """Return what a schema of one value allows: ``whole number, 2 to 100``; ``a, b or c``."""
    if "enum" in schema:
        return _alternatives([str(each) for each in schema["enum"]])
    if "const" in schema:
        return str(schema["const"])
    for key in ("anyOf", "oneOf"):
        if key in schema:
            return _alternatives([allowed_values(each) for each in schema[key]])
    kind = _TYPES.get(schema.get("type", ""), "anything")
    if schema.get("type") == "array":
        item = allowed_values(schema.get("items", {}))
        limits = _limits(schema.get("minItems"), schema.get("maxItems"))
        return f"list ({limits}) of: {item}" if limits else f"list of: {item}"
    limits = _limits(
        schema.get("minimum"),
        schema.get("maximum"),
        schema.get("exclusiveMinimum"),
        schema.get("exclusiveMaximum"),
    )
    return f"{kind}, {limits}" if limits else kind


def _limits(
    least: float | None, most: float | None, above: float | None = None, below: float | None = None
) -> str:
    if least is not None and most is not None:
        return f"{least:g} to {most:g}"
    parts = []
    for word, limit in (("at least", least), ("above", above), ("at most", most), ("below", below)):
        if limit is not None:
            parts.append(f"{word} {limit:g}")
    return ", ".join(parts)


def _alternatives(words: list[str]) -> str:
    return " or ".join([", ".join(words[:-1]), words[-1]]) if len(words) > 1 else "".join(words)


def as_written(value: object) -> str:
    """Return a value as it would stand in a strategy file, on one line."""
    if isinstance(value, float):
        return f"{value:g}"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
