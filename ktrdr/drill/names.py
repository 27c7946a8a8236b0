"""The names that drills use on a broker: all of them begin with a prefix that is thrown away."""

import re
from datetime import UTC, datetime

from ktrdr.bus.rabbitmq_arguments import wire_name
from ktrdr.bus.topology import control_queue, shared_topology
from ktrdr.ids import IdFactory

FAMILY = "ktrdr-drill-"
"""What all prefixes of drills begin with."""

NOWHERE = "ktrdr.drill.nowhere"
PROBE = "ktrdr.drill.probe"
KEPT = "ktrdr.drill.kept"
TAKEN_AWAY = "ktrdr.drill.taken-away"
HELD = "ktrdr.drill.held"
FIGURES = "ktrdr.drill.figures"
LARGE = "ktrdr.drill.large"
TAP = "ktrdr.drill.tap"

AGENTS = ("drill-1", "drill-2")

_PREFIX = re.compile(rf"({FAMILY}(\d{{14}})-[0-9a-z]+)(\..*)?")
_BORN = "%Y%m%d%H%M%S"


def new_prefix(now: datetime, ids: IdFactory) -> str:
    """Return a prefix that nobody has, and that says when it was made."""
    return f"{FAMILY}{now.astimezone(UTC):{_BORN}}-{ids.token()}"


def prefix_of(name: str) -> str | None:
    """Return the prefix of a name on the broker, or of a directory, if a drill made it."""
    match = _PREFIX.fullmatch(name)
    return match[1] if match else None


def born(prefix: str) -> datetime | None:
    """Return when a prefix was made; None if no drill made it."""
    match = _PREFIX.fullmatch(prefix)
    try:
        return datetime.strptime(match[2] if match else "", _BORN).replace(tzinfo=UTC)
    except ValueError:
        return None


def queues_of(prefix: str) -> tuple[str, ...]:
    """Return every queue that a drill of this prefix may have declared, as the broker calls them."""
    shared = (queue.name for queue in shared_topology().queues)
    own = (PROBE, KEPT, TAKEN_AWAY, HELD, FIGURES, LARGE, TAP)
    return tuple(wire_name(name, prefix) for name in (*shared, *map(control_queue, AGENTS), *own))


def exchanges_of(prefix: str) -> tuple[str, ...]:
    """Return every exchange that a drill of this prefix may have declared, as the broker calls them."""
    shared = (exchange.name for exchange in shared_topology().exchanges)
    return tuple(wire_name(name, prefix) for name in (*shared, NOWHERE, PROBE))
