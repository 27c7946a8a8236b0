"""RabbitMQ's definitions file: exchanges, queues, and users who may do only what they have to."""

import base64
import hashlib
import json
import re
import secrets
from collections.abc import Mapping, Sequence
from typing import Any

from ktrdr.bus.rabbitmq_arguments import WireNames, queue_arguments
from ktrdr.bus.topology import (
    CONTROL,
    EVENTS,
    JOURNAL,
    LANES,
    LOGS,
    PRESENCE,
    ROUTES,
    Party,
    control_queue,
    lane_queue,
    shared_topology,
)

BACKEND = "backend"
AGENT = "agent"
OBSERVER = "observer"

_SALT_BYTES = 4
_ANYTHING = ".*"
_NOTHING = "^$"


def definitions_json(
    *,
    prefix: str = "ktrdr",
    vhost: str = "/",
    lanes: Sequence[str] = LANES,
    agents: Sequence[str] = (),
    administrator: str | None = None,
    passwords: Mapping[str, str] | None = None,
) -> str:
    """Return the file as RabbitMQ imports it.

    Args:
        prefix: what names of exchanges and queues begin with.
        vhost: where they are.
        lanes: of agents.
        agents: ids of agents that have a user each, named as they are, instead of the shared user `AGENT`.
        administrator: a user who may do everything, for the management UI.
        passwords: by user; who has none cannot log in with a password until one is set. The file has only
            salted hashes of them: SHA-256, which a short password does not withstand for long.
    """
    names = WireNames(prefix)
    users = users_of(agents=agents, administrator=administrator)
    document = {
        "vhosts": [{"name": vhost}],
        "users": [
            _user(name, (passwords or {}).get(name), tags="administrator" if name == administrator else "")
            for name in users
        ],
        "permissions": [
            {"user": name, "vhost": vhost, **_permissions(name, names, administrator)} for name in users
        ],
        "topic_permissions": [
            {"user": name, "vhost": vhost, **_what_agents_say(names, exchange)}
            for name in agents or (AGENT,)
            for exchange in (EVENTS, LOGS)
        ],
        **_topology(names, vhost, lanes),
    }
    return json.dumps(document, indent=2) + "\n"


def users_of(*, agents: Sequence[str] = (), administrator: str | None = None) -> tuple[str, ...]:
    """Return the users that the definitions name."""
    people = (administrator,) if administrator is not None else ()
    return (BACKEND, *(agents or (AGENT,)), OBSERVER, *people)


def password_hash(password: str, salt: bytes | None = None) -> str:
    """Return what RabbitMQ keeps of a password: base 64 of a salt and the SHA-256 of both."""
    salt = salt or secrets.token_bytes(_SALT_BYTES)
    return base64.b64encode(salt + hashlib.sha256(salt + password.encode()).digest()).decode()


def _user(name: str, password: str | None, *, tags: str) -> dict[str, Any]:
    return {
        "name": name,
        "password_hash": "" if password is None else password_hash(password),
        "hashing_algorithm": "rabbit_password_hashing_sha256",
        "tags": tags,
    }


def _permissions(user: str, names: WireNames, administrator: str | None) -> dict[str, str]:
    """Return what a user may declare, write to and read from, as patterns of names."""

    def exactly(name: str) -> str:
        return re.escape(names.wire(name))

    everything = exactly("ktrdr.") + _ANYTHING
    if user == administrator:
        return {"configure": _ANYTHING, "write": _ANYTHING, "read": _ANYTHING}
    if user == BACKEND:
        # The default exchange takes dead letters back to where they died.
        return _allow(configure=[everything], write=[everything, r"amq\.default"], read=[everything])
    if user == OBSERVER:
        return _allow(read=[exactly(JOURNAL)])
    # What keeps the queues of the shared user's agents apart is that they are exclusive.
    own = exactly(control_queue("")) + (".+" if user == AGENT else re.escape(user))
    lanes = exactly(lane_queue("")) + ".+"
    return _allow(
        configure=[own],
        write=[own, exactly(EVENTS), exactly(LOGS), exactly(PRESENCE)],
        read=[own, exactly(CONTROL), lanes],
    )


def _allow(
    *, configure: Sequence[str] = (), write: Sequence[str] = (), read: Sequence[str] = ()
) -> dict[str, str]:
    allowed = {"configure": configure, "write": write, "read": read}
    return {what: f"^({'|'.join(patterns)})$" if patterns else _NOTHING for what, patterns in allowed.items()}


def _what_agents_say(names: WireNames, exchange: str) -> dict[str, str]:
    kinds = [
        rule.routing_key.rpartition(".")[2]
        for rule in ROUTES.values()
        if rule.sender is Party.AGENT and rule.exchange == exchange
    ]
    keys = rf"^training\.[A-Za-z0-9_-]+\.({'|'.join(kinds)})$"
    return {"exchange": names.wire(exchange), "write": keys, "read": _NOTHING}


def _topology(names: WireNames, vhost: str, lanes: Sequence[str]) -> dict[str, Any]:
    topology = shared_topology(tuple(lanes))
    return {
        "exchanges": [
            {
                "name": names.wire(exchange.name),
                "vhost": vhost,
                "type": exchange.kind.value,
                "durable": True,
                "auto_delete": False,
                "internal": False,
                "arguments": {},
            }
            for exchange in topology.exchanges
        ],
        "queues": [
            {
                "name": names.wire(queue.name),
                "vhost": vhost,
                "durable": True,
                "auto_delete": False,
                "arguments": dict(queue_arguments(queue, names.prefix)),
            }
            for queue in topology.queues
        ],
        "bindings": [
            {
                "source": names.wire(binding.exchange),
                "vhost": vhost,
                "destination": names.wire(binding.queue),
                "destination_type": "queue",
                "routing_key": binding.routing_key,
                "arguments": {},
            }
            for binding in topology.bindings
        ],
    }
