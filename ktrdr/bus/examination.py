"""What is on a broker against what ktrdr needs there, in words, and what to do about each difference."""

from collections.abc import Iterator, Mapping, Sequence

from ktrdr.addresses import is_loopback
from ktrdr.bus.broker_probe import BrokerProbe, Difference, Server, Sighting, Standing
from ktrdr.bus.findings import SET_UP, Finding, Mark, Part
from ktrdr.bus.management import ManagementView
from ktrdr.bus.management_examination import alarms, examine_view, rights
from ktrdr.bus.rabbitmq_arguments import WireNames, queue_arguments
from ktrdr.bus.topology import (
    BACKEND_EVENTS,
    BACKEND_RETURNED,
    DEAD_LETTERS,
    Exchange,
    Queue,
    QueueKind,
    Topology,
    lane_queue,
)

_OLDEST_VERSION = (3, 10)
_OF_BACKEND = frozenset({BACKEND_EVENTS, BACKEND_RETURNED})
_BINDINGS_UNKNOWN = Finding(
    Part.BINDING,
    "all",
    Mark.NOTE,
    "not looked at: AMQP does not tell which bindings there are",
    "Name the management API: --management http://USER:PASSWORD@HOST:15672. "
    "`ktrdr broker setup` restores what is missing, and harms nothing.",
)


async def examine(
    probe: BrokerProbe, topology: Topology, *, prefix: str, view: ManagementView | None
) -> list[Finding]:
    """Compare a broker with a topology; changes nothing.

    Args:
        probe: connected to the broker.
        topology: what is wanted.
        prefix: what names begin with on the broker.
        view: what the management API says, without which bindings, leftovers, alarms and permissions are not
            known.

    Raises:
        BusUnavailableError: the connection was lost.
    """
    names = WireNames(prefix)
    examination = Examination(names, view)
    server = await probe.server()
    findings = [*_broker(server)]
    if view is not None:
        findings += [*alarms(view), *rights(view, server.user)]
    may_declare = True
    for exchange in topology.exchanges:
        seen = await probe.exchange(exchange)
        may_declare &= seen.standing is not Standing.THERE
        findings.append(examination.exchange(exchange, seen))
    for queue in topology.queues:
        seen = await probe.queue(queue)
        may_declare &= seen.standing is not Standing.THERE
        findings.append(examination.queue(queue, seen))
    if not may_declare:
        findings.append(_may_not_declare(server.user, view))
    return findings + ([_BINDINGS_UNKNOWN] if view is None else [*examine_view(view, topology, names)])


class Examination:
    """Turns what was seen into findings, with what the management API adds to it."""

    def __init__(self, names: WireNames, view: ManagementView | None) -> None:
        self._names = names
        self._view = view

    def exchange(self, exchange: Exchange, seen: Sighting) -> Finding:
        """Tell how an exchange is."""
        name = self._names.wire(exchange.name)
        match seen.standing:
            case Standing.MISSING:
                return Finding(Part.EXCHANGE, name, Mark.WRONG, "is missing", SET_UP)
            case Standing.DIFFERENT:
                return Finding(
                    Part.EXCHANGE,
                    name,
                    Mark.WRONG,
                    _describe([seen.difference]),
                    "Stop the backend and the agents, delete it, then: ktrdr broker setup",
                )
        return Finding(Part.EXCHANGE, name, Mark.OK, exchange.kind.value)

    def queue(self, queue: Queue, seen: Sighting) -> Finding:
        """Tell how a queue is, and whether something waits in it for nobody."""
        name = self._names.wire(queue.name)
        if seen.standing is Standing.MISSING:
            return Finding(Part.QUEUE, name, Mark.WRONG, "is missing", SET_UP)
        differences = self._differences(queue, name, seen)
        depth = self._depth(queue, name, seen)
        if differences:
            until = "it is empty" if queue.kind is not QueueKind.STREAM else "nobody needs what it holds"
            return Finding(
                Part.QUEUE,
                name,
                Mark.WRONG,
                f"{_describe(differences)} ({depth})",
                f"Delete it when {until} (rabbitmqctl delete_queue {name}), then: ktrdr broker setup",
            )
        hint = _hint(queue, seen)
        return Finding(Part.QUEUE, name, Mark.NOTE if hint else Mark.OK, depth, hint)

    def _differences(self, queue: Queue, name: str, seen: Sighting) -> Sequence[Difference | None]:
        managed = self._view.queues.get(name) if self._view is not None else None
        if managed is not None:
            wanted = queue_arguments(queue, self._names.prefix)
            if differences := list(_compare(managed.arguments, wanted)):
                return differences
        return [seen.difference] if seen.standing is Standing.DIFFERENT else []

    def _depth(self, queue: Queue, name: str, seen: Sighting) -> str:
        depth = f"{_counted(seen.ready, 'message')}, {_counted(seen.consumers, 'consumer')}"
        managed = self._view.queues.get(name) if self._view is not None else None
        held = f", {managed.unacknowledged:,} held" if managed is not None and managed.unacknowledged else ""
        return f"{queue.kind.value}, {depth}{held}"


def _broker(server: Server) -> Iterator[Finding]:
    where = f"{server.host}:{server.port}, vhost {server.vhost}, user {server.user}"
    what = f"{server.product} {server.version} at {where}"
    if server.product == "RabbitMQ" and _version(server.version) < _OLDEST_VERSION:
        oldest = ".".join(map(str, _OLDEST_VERSION))
        yield Finding(Part.BROKER, "version", Mark.WRONG, what, f"Upgrade it to {oldest} or newer.")
    else:
        yield Finding(Part.BROKER, "version", Mark.OK, what)
    if server.encrypted:
        yield Finding(
            Part.BROKER, "TLS", Mark.OK, "the connection is encrypted, and the broker's certificate good"
        )
    elif is_loopback(server.host):
        yield Finding(Part.BROKER, "TLS", Mark.OK, "not used, nor needed: the broker is on this machine")
    else:
        yield Finding(
            Part.BROKER,
            "TLS",
            Mark.NOTE,
            "the connection is not encrypted: whoever is on the way reads the password",
            "Connect with amqps://, as docs/tls.md says, unless the network is private.",
        )


def _may_not_declare(user: str, view: ManagementView | None) -> Finding:
    compared = " by AMQP; the management API was asked" if view is not None else ""
    return Finding(
        Part.USER,
        user,
        Mark.NOTE,
        f"may not declare everything, so whether arguments are as wanted was not asked{compared}",
        "That is right for an agent and for the observer; check as the user of the backend to see more.",
    )


def _compare(found: Mapping[str, object], wanted: Mapping[str, object]) -> Iterator[Difference]:
    # A queue that does not say what it is, is a classic one.
    found = {"x-queue-type": QueueKind.CLASSIC.value, **found}
    for name in sorted({*found, *wanted}):
        if found.get(name) != wanted.get(name):
            yield Difference(name, str(found.get(name, "not set")), str(wanted.get(name, "not set")))


def _describe(differences: Sequence[Difference | None]) -> str:
    words = [
        f"has {each.name} {each.found}, wanted {each.wanted}" if each else "has other arguments than wanted"
        for each in differences
    ]
    return ", ".join(words)


def _hint(queue: Queue, seen: Sighting) -> str | None:
    if queue.name == DEAD_LETTERS:
        return "See what they are: ktrdr dead list" if seen.ready else None
    if seen.consumers:
        return None
    if queue.name in _OF_BACKEND:
        return "No backend is connected: ktrdr serve" if seen.ready else None
    if queue.name.startswith(lane_queue("")) and seen.ready:
        lane = queue.name.removeprefix(lane_queue(""))
        return f"No agent of the lane is free (ktrdr agents). One more: ktrdr agent --lane {lane}"
    return None


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(number) for number in text.split(".")[:2] if number.isdigit())


def _counted(number: int, what: str) -> str:
    return f"{number:,} {what}{'s' if number != 1 else ''}"
