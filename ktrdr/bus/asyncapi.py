"""The protocol as an AsyncAPI document: which event goes where, and its schema.

``python -m ktrdr.bus.asyncapi [--check] DIR`` writes ``asyncapi.yaml`` beside the schemas, or tells whether
it is current.
"""

import inspect
import re
import sys
from collections.abc import Mapping
from typing import Any

import yaml

from ktrdr.bus.topology import ROUTES, Exchange, Party, RouteRule, shared_topology
from ktrdr.docstrings import field_descriptions
from ktrdr.events import generated
from ktrdr.events.base import Event, Part
from ktrdr.events.codec import CONTENT_TYPE
from ktrdr.events.schemas import schema_file_name
from ktrdr.events.training import PROTOCOL_VERSION

_NAME = "asyncapi.yaml"
_DESCRIPTION = (
    "The messages of the training service, seen from its backend: it sends what host agents receive, and the "
    "reverse. Bodies are msgpack; the schemas describe the same fields as JSON."
)


def main(arguments: list[str] | None = None) -> int:
    """Run the command."""
    return generated.run("ktrdr.bus.asyncapi", {_NAME: asyncapi_yaml()}, arguments, owned=_NAME)


def asyncapi_yaml() -> str:
    """Return the document as YAML."""
    return yaml.safe_dump(asyncapi_document(), sort_keys=False, allow_unicode=True, width=110)


def asyncapi_document() -> dict[str, Any]:
    """Return the AsyncAPI 3.0 document that `ROUTES` and the event classes amount to."""
    exchanges = {exchange.name: exchange for exchange in shared_topology().exchanges}
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "ktrdr training events",
            "version": f"{PROTOCOL_VERSION}.0.0",
            "description": _DESCRIPTION,
            "license": {"name": "MIT"},
        },
        "defaultContentType": CONTENT_TYPE,
        "channels": {
            event_type.type: _channel(event_type, rule, exchanges[rule.exchange])
            for event_type, rule in ROUTES.items()
        },
        "operations": {
            event_type.__name__: {
                "action": "send" if rule.sender is Party.BACKEND else "receive",
                "channel": {"$ref": f"#/channels/{event_type.type}"},
                "messages": [{"$ref": f"#/channels/{event_type.type}/messages/{event_type.__name__}"}],
            }
            for event_type, rule in ROUTES.items()
        },
        "components": {
            "messages": {event_type.__name__: _message(event_type) for event_type in ROUTES},
        },
    }


def _channel(event_type: type[Event], rule: RouteRule, exchange: Exchange) -> dict[str, Any]:
    fields = re.findall(r"{(\w+)}", rule.routing_key)
    # A fanout exchange has no keys to tell channels apart, so its channel is known by its own name.
    address = rule.routing_key or exchange.name
    return {
        "address": address,
        **({"parameters": _parameters(event_type, fields)} if fields else {}),
        "messages": {event_type.__name__: {"$ref": f"#/components/messages/{event_type.__name__}"}},
        "bindings": {
            "amqp": {
                "is": "routingKey",
                "exchange": {
                    "name": exchange.name,
                    "type": exchange.kind.value,
                    "durable": True,
                    "autoDelete": False,
                },
                "bindingVersion": "0.3.0",
            }
        },
    }


def _parameters(event_type: type[Event], fields: list[str]) -> Mapping[str, Any]:
    descriptions = field_descriptions(event_type, Part)
    return {
        field: {"description": descriptions.get(field, f"The field `{field}` of the event.")}
        for field in fields
    }


def _message(event_type: type[Event]) -> dict[str, Any]:
    return {
        "name": event_type.type_name(),
        "summary": inspect.cleandoc(event_type.__doc__ or "").splitlines()[0],
        "contentType": CONTENT_TYPE,
        "payload": {
            "schemaFormat": "application/schema+json;version=2020-12",
            "schema": {"$ref": f"./{schema_file_name(event_type)}"},
        },
    }


if __name__ == "__main__":
    sys.exit(main())
