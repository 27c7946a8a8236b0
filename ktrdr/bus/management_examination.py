"""What only the management API tells of a broker, against what ktrdr needs there."""

from collections.abc import Iterator

from ktrdr.bus.findings import SET_UP, Finding, Mark, Part
from ktrdr.bus.management import ManagementView
from ktrdr.bus.rabbitmq_arguments import WireNames
from ktrdr.bus.topology import Binding, Topology, control_queue, lane_queue

_OF_BACKENDS = "ktrdr.backend."

# What a policy may say of a queue that loses messages, or sends them elsewhere.
_MEDDLING = frozenset(
    {
        "dead-letter-exchange",
        "dead-letter-routing-key",
        "dead-letter-strategy",
        "delivery-limit",
        "expires",
        "max-age",
        "max-length",
        "max-length-bytes",
        "message-ttl",
        "overflow",
    }
)


def examine_view(view: ManagementView, topology: Topology, names: WireNames) -> Iterator[Finding]:
    """Tell which bindings are missing, which policies meddle, and what nobody declares."""
    yield from _bindings(view, topology, names)
    yield from _policies(view, topology, names)
    yield from _other_exchanges(view, topology, names)
    yield from _other_queues(view, topology, names)
    yield from _other_bindings(view, topology, names)


def alarms(view: ManagementView) -> Iterator[Finding]:
    """Tell whether the broker is short of something."""
    for alarm in view.alarms or ():
        yield Finding(
            Part.BROKER,
            "alarm",
            Mark.WRONG,
            f"{alarm}: it takes no messages until there is room again",
            "Give it more, or empty the fullest queues. Trainings that run go on meanwhile.",
        )


def rights(view: ManagementView, user: str) -> Iterator[Finding]:
    """Tell what the user may do, if that may be known."""
    if view.permissions is not None:
        may = view.permissions
        patterns = {"declare": may.configure, "write": may.write, "read": may.read}
        detail = ", ".join(f"{what} {pattern or 'nothing'}" for what, pattern in patterns.items())
        yield Finding(Part.USER, user, Mark.OK, f"may {detail}")


def name_of(binding: Binding, names: WireNames) -> str:
    """Return what people read for a binding."""
    return _words(*_as_found(binding, names))


def _bindings(view: ManagementView, topology: Topology, names: WireNames) -> Iterator[Finding]:
    for binding in topology.bindings:
        if _as_found(binding, names) in view.bindings:
            yield Finding(Part.BINDING, name_of(binding, names), Mark.OK)
        else:
            yield Finding(Part.BINDING, name_of(binding, names), Mark.WRONG, "is missing", SET_UP)


def _policies(view: ManagementView, topology: Topology, names: WireNames) -> Iterator[Finding]:
    for name in _queues_of(topology, names):
        if (queue := view.queues.get(name)) is None:
            continue
        changed = [f"{key} {value}" for key, value in queue.policy.items() if key in _MEDDLING]
        if changed:
            yield Finding(
                Part.POLICY,
                queue.policies,
                Mark.WRONG,
                f"sets {', '.join(changed)} on {name}",
                "Keep the policy away from ktrdr's queues: change its pattern.",
            )


def _other_exchanges(view: ManagementView, topology: Topology, names: WireNames) -> Iterator[Finding]:
    for name in sorted(view.exchanges - _exchanges_of(topology, names)):
        if name.startswith(names.wire("ktrdr.")):
            yield _leftover(f"exchange {name}", "Delete it, if nothing of yours uses it.")


def _other_queues(view: ManagementView, topology: Topology, names: WireNames) -> Iterator[Finding]:
    lane, control = names.wire(lane_queue("")), names.wire(control_queue(""))
    of_backends = names.wire(_OF_BACKENDS)
    declared = _queues_of(topology, names)
    for name, queue in sorted(view.queues.items()):
        is_somebodys = queue.exclusive and name.startswith((control, of_backends))
        if name in declared or is_somebodys or not name.startswith(names.wire("ktrdr.")):
            continue
        if name.startswith(lane):
            option = f"--lane {name.removeprefix(lane)}"
            yield _leftover(f"queue {name}", f"Check it with {option}, or delete it when it is empty.")
        elif name.startswith(of_backends):
            yield _leftover(
                f"queue {name}",
                f"Delete it, whatever is in it (rabbitmqctl delete_queue {name}): no backend reads it, and "
                "what it is bound to fills it.",
            )
        else:
            yield _leftover(f"queue {name}", "Delete it when it is empty, if nothing of yours uses it.")


def _other_bindings(view: ManagementView, topology: Topology, names: WireNames) -> Iterator[Finding]:
    exchanges, queues = _exchanges_of(topology, names), _queues_of(topology, names)
    wanted = {_as_found(binding, names) for binding in topology.bindings}
    for exchange, queue, key in sorted(view.bindings - wanted):
        if exchange in exchanges and queue in queues:
            yield _leftover(f"binding {_words(exchange, queue, key)}", "Remove it in the management UI.")


def _leftover(name: str, fix: str) -> Finding:
    return Finding(Part.LEFTOVER, name, Mark.NOTE, "nobody declares it", fix)


def _exchanges_of(topology: Topology, names: WireNames) -> set[str]:
    return {names.wire(exchange.name) for exchange in topology.exchanges}


def _queues_of(topology: Topology, names: WireNames) -> dict[str, None]:
    return {names.wire(queue.name): None for queue in topology.queues}


def _as_found(binding: Binding, names: WireNames) -> tuple[str, str, str]:
    return names.wire(binding.exchange), names.wire(binding.queue), binding.routing_key


def _words(exchange: str, queue: str, key: str) -> str:
    return f"{exchange} → {queue}" + (f" ({key})" if key else "")
