"""JSON Schema of every event, for those who speak the protocol in another language.

``python -m ktrdr.events.schemas [--check] DIR`` writes ``<type>.v<version>.json`` files, or tells which are
not current. They describe an event as JSON; on the wire it is msgpack with the same fields, where bytes are
``bin`` instead of base64 and times are timestamps (extension type -1) instead of text.
"""

import json
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from ktrdr.docstrings import field_descriptions, prose
from ktrdr.events import generated
from ktrdr.events.base import Event, Part
from ktrdr.events.training import EVENT_TYPES

_OWNED = "ktrdr.*.v*.json"


def main(arguments: list[str] | None = None) -> int:
    """Run the command."""
    return generated.run("ktrdr.events.schemas", schema_files(), arguments, owned=_OWNED)


def schema_files() -> Mapping[str, str]:
    """Return name → content of each schema file."""
    return {
        schema_file_name(event_type): json.dumps(json_schema(event_type), indent=2, ensure_ascii=False) + "\n"
        for event_type in EVENT_TYPES
    }


def schema_file_name(event_type: type[Event]) -> str:
    """Return ``<type>.v<version>.json``."""
    return f"{event_type.type_name()}.json"


def json_schema(event_type: type[Event]) -> dict[str, Any]:
    """Return the JSON Schema (2020-12) of an event as JSON, with what the code says of each field."""
    schema = event_type.model_json_schema(mode="serialization", schema_generator=_Generator)
    models = {model.__name__: model for model in _models(Part)}
    definitions = schema.pop("$defs", {})
    _describe(schema, event_type)
    for name, definition in definitions.items():
        if name in models:
            _describe(definition, models[name])
    titled = {**schema, "title": event_type.type_name(), "description": prose(event_type.__doc__ or "")}
    return {
        "$schema": GenerateJsonSchema.schema_dialect,
        "$id": f"urn:ktrdr:event:{event_type.type_name()}",
        **{key: titled.pop(key) for key in ("title", "description", "type")},
        **titled,
        **({"$defs": definitions} if definitions else {}),
    }


class _Generator(GenerateJsonSchema):
    def bytes_schema(self, schema: core_schema.BytesSchema) -> JsonSchemaValue:
        # pydantic's limit counts bytes, the schema's counts the characters that encode them.
        encoded = {"type": "string", "contentEncoding": "base64url"}
        limit = schema.get("max_length")
        return encoded if limit is None else {**encoded, "maxLength": (limit + 2) // 3 * 4}

    def get_title_from_name(self, name: str) -> str:
        return name


def _models(base: type[Part]) -> Iterator[type[Part]]:
    for model in base.__subclasses__():
        yield model
        yield from _models(model)


def _describe(schema: dict[str, Any], model: type[Part]) -> None:
    descriptions = field_descriptions(model, Part)
    for name, field in schema.get("properties", {}).items():
        field.pop("title", None)
        if name in descriptions:
            field["description"] = descriptions[name]


if __name__ == "__main__":
    sys.exit(main())
