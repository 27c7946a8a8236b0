"""Exchanges, queues and bindings: what is declared, and where each event goes."""

from dataclasses import dataclass, field
from enum import StrEnum

from ktrdr.events.base import Event, OperationEvent
from ktrdr.events.training import (
    AgentPresence,
    CancelRequested,
    ModelDiscarded,
    ModelPersisted,
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
    """A message given back more often than this is dead-lettered."""
    dead_letter_exchange: str | None = None


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


REQUESTS = "ktrdr.requests"
EVENTS = "ktrdr.events"
CONTROL = "ktrdr.control"
PRESENCE = "ktrdr.presence"
DEAD = "ktrdr.dead"

BACKEND_EVENTS = "ktrdr.backend.events"
BACKEND_PROGRESS = "ktrdr.backend.progress"
BACKEND_PRESENCE = "ktrdr.backend.presence"
DEAD_LETTERS = "ktrdr.dead-letters"
JOURNAL = "ktrdr.journal"

LANES = ("any", "gpu")
_DELIVERY_LIMIT = 5
_PROGRESS_BACKLOG = 1000


def lane_queue(lane: str) -> str:
    """Return the queue of requests for a lane."""
    return f"ktrdr.lane.{lane}"


def control_queue(agent_id: str) -> str:
    """Return the queue of what one agent is told."""
    return f"ktrdr.control.{agent_id}"


def shared_topology(lanes: tuple[str, ...] = LANES) -> Topology:
    """Return what every process declares, whoever comes first."""
    return Topology(
        exchanges=(
            Exchange(REQUESTS, ExchangeKind.DIRECT),
            Exchange(EVENTS, ExchangeKind.TOPIC),
            Exchange(CONTROL, ExchangeKind.TOPIC),
            Exchange(PRESENCE, ExchangeKind.FANOUT),
            Exchange(DEAD, ExchangeKind.TOPIC),
        ),
        queues=(
            *(
                Queue(lane_queue(lane), delivery_limit=_DELIVERY_LIMIT, dead_letter_exchange=DEAD)
                for lane in lanes
            ),
            Queue(BACKEND_EVENTS, delivery_limit=_DELIVERY_LIMIT, dead_letter_exchange=DEAD),
            Queue(BACKEND_PROGRESS, kind=QueueKind.CLASSIC, max_length=_PROGRESS_BACKLOG),
            Queue(BACKEND_PRESENCE, kind=QueueKind.CLASSIC, max_length=_PROGRESS_BACKLOG),
            Queue(JOURNAL, kind=QueueKind.STREAM, max_length=100_000),
            Queue(DEAD_LETTERS),
        ),
        bindings=(
            *(Binding(REQUESTS, lane_queue(lane), lane) for lane in lanes),
            *(Binding(EVENTS, BACKEND_EVENTS, f"training.*.{kind}") for kind in _DURABLE_KINDS),
            Binding(EVENTS, BACKEND_PROGRESS, "training.*.progress"),
            Binding(EVENTS, JOURNAL, "#"),
            Binding(PRESENCE, BACKEND_PRESENCE),
            Binding(DEAD, DEAD_LETTERS, "#"),
        ),
    )


def agent_topology(agent_id: str) -> Topology:
    """Return the exclusive control queue of one agent."""
    queue = control_queue(agent_id)
    return Topology(
        queues=(Queue(queue, kind=QueueKind.CLASSIC, exclusive=True),),
        bindings=(Binding(CONTROL, queue, "#"),),
    )


@dataclass(frozen=True, slots=True)
class Route:
    """Where an event is published."""

    exchange: str
    routing_key: str
    mandatory: bool
    """Whether it is an error that no queue takes it."""


_DURABLE_KINDS = ("accepted", "checkpoint_saved", "model_ready", "failed", "cancelled")


def route(event: Event) -> Route:
    """Return where an event goes; decided by its type alone."""
    match event:
        case TrainingRequested():
            return Route(REQUESTS, event.lane, mandatory=True)
        case CancelRequested() | ModelPersisted() | ModelDiscarded():
            # Nobody may be listening: an agent that comes back asks again by what it says of its attempt.
            return Route(CONTROL, f"training.{event.operation_id}.{_kind(event)}", mandatory=False)
        case AgentPresence():
            return Route(PRESENCE, "", mandatory=False)
        case TrainingProgress():
            return Route(EVENTS, f"training.{event.operation_id}.progress", mandatory=False)
        case OperationEvent():
            return Route(EVENTS, f"training.{event.operation_id}.{_kind(event)}", mandatory=True)
        case _:
            raise ValueError(f"{event.type_name()} has no route")


def _kind(event: Event) -> str:
    return event.type.rpartition(".")[2]
