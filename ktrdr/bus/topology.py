"""Exchanges, queues and bindings: what is declared, and where each event goes."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from ktrdr.events.base import ClaimEvent, Event, OperationEvent
from ktrdr.events.training import (
    AgentPresence,
    CancelRequested,
    CheckpointSaved,
    ModelDiscarded,
    ModelPersisted,
    ModelReady,
    TrainingAccepted,
    TrainingCancelled,
    TrainingFailed,
    TrainingLogged,
    TrainingProgress,
    TrainingRequested,
)


class ExchangeKind(StrEnum):
    """How an exchange routes."""

    DIRECT = "direct"
    TOPIC = "topic"
    FANOUT = "fanout"


class QueueKind(StrEnum):
    """How a queue stores."""

    QUORUM = "quorum"
    CLASSIC = "classic"
    STREAM = "stream"


@dataclass(frozen=True, slots=True)
class Exchange:
    """A durable exchange."""

    name: str
    kind: ExchangeKind


@dataclass(frozen=True, slots=True)
class Queue:
    """A queue and its limits."""

    name: str
    kind: QueueKind = QueueKind.QUORUM
    exclusive: bool = False
    """Deleted when its consumer's connection closes; classic only."""
    max_length: int | None = None
    """Beyond it the oldest are dropped (``drop-head``)."""
    delivery_limit: int | None = None
    """A message given back more often than this is dead-lettered; quorum only."""
    dead_letter_exchange: str | None = None
    """Where the expired, the overflowing and the rejected go, under their routing keys; lost if None."""
    reject_exchange: str | None = None
    """Where the rejected go instead: if what overflows is of no interest, but what cannot be read is."""

    def __post_init__(self) -> None:
        """Refuse what no broker can declare."""
        if self.exclusive and self.kind is not QueueKind.CLASSIC:
            raise ValueError(f"queue '{self.name}': only a classic queue can be exclusive")
        if self.delivery_limit is not None and self.kind is not QueueKind.QUORUM:
            raise ValueError(f"queue '{self.name}': only a quorum queue has a delivery limit")
        if self.kind is QueueKind.STREAM and (self.dead_letter_exchange or self.reject_exchange):
            raise ValueError(f"queue '{self.name}': a stream keeps its messages, so none is dead-lettered")


@dataclass(frozen=True, slots=True)
class Binding:
    """Messages of an exchange whose routing key matches go to the queue."""

    exchange: str
    queue: str
    routing_key: str = ""
    """For topic exchanges, words with ``*`` (one word) and ``#`` (any number of words)."""


@dataclass(frozen=True, slots=True)
class Topology:
    """A set of declarations."""

    exchanges: tuple[Exchange, ...] = ()
    queues: tuple[Queue, ...] = ()
    bindings: tuple[Binding, ...] = field(default=())


DEFAULT_EXCHANGE = ""
"""Every broker has it: it takes a message to the queue whose name is the routing key."""

REQUESTS = "ktrdr.requests"
EVENTS = "ktrdr.events"
LOGS = "ktrdr.logs"
"""Apart from `EVENTS`, so that no line of a log is in the journal or beside a result."""
CONTROL = "ktrdr.control"
PRESENCE = "ktrdr.presence"
RETURNED = "ktrdr.returned"
DEAD = "ktrdr.dead"

BACKEND_EVENTS = "ktrdr.backend.events"
BACKEND_RETURNED = "ktrdr.backend.returned"
DEAD_LETTERS = "ktrdr.dead-letters"
JOURNAL = "ktrdr.journal"

LANES = ("any", "gpu")
_DELIVERY_LIMIT = 5
# RabbitMQ 4 drops a message that was given back 20 times, unless told otherwise; looking at a dead letter
# gives it back.
_NO_DELIVERY_LIMIT = 1_000_000
_BACKLOG = 1000
"""Messages of which only the newest count: more of them are stale."""
_LOG_BACKLOG = 200
"""Likewise of lines of logs, of which a message may hold many."""


def lane_queue(lane: str) -> str:
    """Return the queue of requests for a lane."""
    return f"ktrdr.lane.{lane}"


def control_queue(agent_id: str) -> str:
    """Return the queue of what one agent is told."""
    return f"ktrdr.control.{agent_id}"


def progress_queue(backend: str) -> str:
    """Return the queue of the progress that one backend hears."""
    return f"ktrdr.backend.{backend}.progress"


def logs_queue(backend: str) -> str:
    """Return the queue of what agents log that one backend hears."""
    return f"ktrdr.backend.{backend}.logs"


def presence_queue(backend: str) -> str:
    """Return the queue of the presence that one backend hears."""
    return f"ktrdr.backend.{backend}.presence"


def shared_topology(lanes: tuple[str, ...] = LANES) -> Topology:
    """Return what every process declares, whoever comes first."""
    return Topology(
        exchanges=(
            Exchange(REQUESTS, ExchangeKind.DIRECT),
            Exchange(EVENTS, ExchangeKind.TOPIC),
            Exchange(LOGS, ExchangeKind.TOPIC),
            Exchange(CONTROL, ExchangeKind.TOPIC),
            Exchange(PRESENCE, ExchangeKind.FANOUT),
            Exchange(RETURNED, ExchangeKind.TOPIC),
            Exchange(DEAD, ExchangeKind.TOPIC),
        ),
        queues=(
            *(
                # What nobody takes comes back to the backend, which decides; what nobody can read does not.
                Queue(
                    lane_queue(lane),
                    delivery_limit=_DELIVERY_LIMIT,
                    dead_letter_exchange=RETURNED,
                    reject_exchange=DEAD,
                )
                for lane in lanes
            ),
            Queue(BACKEND_RETURNED, delivery_limit=_DELIVERY_LIMIT, dead_letter_exchange=DEAD),
            Queue(BACKEND_EVENTS, delivery_limit=_DELIVERY_LIMIT, dead_letter_exchange=DEAD),
            Queue(JOURNAL, QueueKind.STREAM, max_length=100_000),
            Queue(DEAD_LETTERS, delivery_limit=_NO_DELIVERY_LIMIT),
        ),
        bindings=(
            *(Binding(REQUESTS, lane_queue(lane), lane) for lane in lanes),
            *(
                Binding(EVENTS, BACKEND_EVENTS, _any_operation(rule))
                for event_type, rule in ROUTES.items()
                if rule.exchange == EVENTS and event_type.durable
            ),
            Binding(EVENTS, JOURNAL, "#"),
            Binding(RETURNED, BACKEND_RETURNED, "#"),
            Binding(DEAD, DEAD_LETTERS, "#"),
        ),
    )


def agent_topology(agent_id: str) -> Topology:
    """Return the exclusive control queue of one agent."""
    queue = control_queue(agent_id)
    return Topology(
        queues=(Queue(queue, QueueKind.CLASSIC, exclusive=True, reject_exchange=DEAD),),
        bindings=(Binding(CONTROL, queue, "#"),),
    )


def progress_topology(backend: str) -> Topology:
    """Return the exclusive queue by which one backend hears of progress.

    It ends with the backend's connection, which the broker may take for alive long after it was lost: a
    backend that connects again takes another name.
    """
    queue = progress_queue(backend)
    return Topology((), (_own(queue),), (Binding(EVENTS, queue, _any_operation(ROUTES[TrainingProgress])),))


def logs_topology(backend: str) -> Topology:
    """Return the exclusive queue by which one backend hears what agents log; likewise."""
    queue = logs_queue(backend)
    key = _any_operation(ROUTES[TrainingLogged])
    return Topology((), (_own(queue, _LOG_BACKLOG),), (Binding(LOGS, queue, key),))


def presence_topology(backend: str) -> Topology:
    """Return the exclusive queue by which one backend hears of presence; likewise."""
    queue = presence_queue(backend)
    return Topology((), (_own(queue),), (Binding(PRESENCE, queue),))


def _own(queue: str, backlog: int = _BACKLOG) -> Queue:
    # What overflows is of no use to anyone; what cannot be read is.
    return Queue(queue, QueueKind.CLASSIC, exclusive=True, max_length=backlog, reject_exchange=DEAD)


class Party(StrEnum):
    """Who speaks."""

    BACKEND = "backend"
    AGENT = "agent"


@dataclass(frozen=True, slots=True)
class Route:
    """Where an event is published."""

    exchange: str
    routing_key: str
    mandatory: bool
    """Whether it is an error that no queue takes it."""


@dataclass(frozen=True, slots=True)
class RouteRule:
    """Where the events of a type are published, and by whom."""

    sender: Party
    exchange: str
    routing_key: str
    """With fields of the event in braces."""
    mandatory: bool


def route(event: Event) -> Route:
    """Return where an event goes; decided by its type alone.

    Raises:
        ValueError: the type has no rule in `ROUTES`.
    """
    rule = ROUTES.get(type(event))
    if rule is None:
        raise ValueError(f"{event.type_name()} has no route")
    fields = _FIELDS_OF_KEY.findall(rule.routing_key)
    key = rule.routing_key.format_map({name: getattr(event, name) for name in fields})
    return Route(rule.exchange, key, rule.mandatory)


def _any_operation(rule: RouteRule) -> str:
    return rule.routing_key.replace("{operation_id}", "*")


_FIELDS_OF_KEY = re.compile(r"{(\w+)}")


def _from_agent(event_type: type[ClaimEvent], exchange: str = EVENTS) -> RouteRule:
    key = f"training.{{operation_id}}.{_kind(event_type)}"
    # Progress may be lost: perhaps nobody listens, and the next one says more.
    return RouteRule(Party.AGENT, exchange, key, mandatory=event_type.durable)


def _to_agents(event_type: type[OperationEvent]) -> RouteRule:
    # Nobody may be listening: an agent that comes back is told again when it says what it holds.
    key = f"training.{{operation_id}}.{_kind(event_type)}"
    return RouteRule(Party.BACKEND, CONTROL, key, mandatory=False)


def _kind(event_type: type[Event]) -> str:
    return event_type.type.rpartition(".")[2]


ROUTES: Mapping[type[Event], RouteRule] = {
    TrainingRequested: RouteRule(Party.BACKEND, REQUESTS, "{lane}", mandatory=True),
    TrainingAccepted: _from_agent(TrainingAccepted),
    TrainingProgress: _from_agent(TrainingProgress),
    TrainingLogged: _from_agent(TrainingLogged, LOGS),
    CheckpointSaved: _from_agent(CheckpointSaved),
    ModelReady: _from_agent(ModelReady),
    TrainingFailed: _from_agent(TrainingFailed),
    TrainingCancelled: _from_agent(TrainingCancelled),
    CancelRequested: _to_agents(CancelRequested),
    ModelPersisted: _to_agents(ModelPersisted),
    ModelDiscarded: _to_agents(ModelDiscarded),
    AgentPresence: RouteRule(Party.AGENT, PRESENCE, "", mandatory=False),
}
"""One rule for each of `EVENT_TYPES`."""
