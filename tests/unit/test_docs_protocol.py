"""`docs/protocol.md` is true."""

import re
from pathlib import Path

import pytest

from ktrdr.bus.dead_letters import FROM_QUEUE_HEADER, FROM_USER_HEADER, REASON_HEADER
from ktrdr.bus.topology import (
    ROUTES,
    Exchange,
    Queue,
    agent_topology,
    logs_topology,
    presence_topology,
    progress_topology,
    shared_topology,
)
from ktrdr.events import EVENT_TYPES, Envelope, Event, codec, encode
from ktrdr.events.references import MAX_INLINE_BYTES
from ktrdr.events.structure import MAX_DEPTH, MAX_VALUES
from tests.unit.events_cases import EXAMPLES

PAGE = (Path(__file__).parents[2] / "docs" / "protocol.md").read_text()
MIB = 1024 * 1024
QUEUES = [
    queue
    for topology in (
        shared_topology(),
        progress_topology("<backend>"),
        presence_topology("<backend>"),
        logs_topology("<backend>"),
        agent_topology("<agent>"),
    )
    for queue in topology.queues
]


def rows(first_header: str) -> dict[str, list[str]]:
    """The table whose first column has that header: first cell → the other cells, without backquotes."""
    table = re.search(rf"^\| {first_header} \|.*\n\|[-|]+\|\n((?:\|.*\n)+)", PAGE, re.MULTILINE)
    assert table is not None
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in table[1].splitlines()]
    return {cell.strip("`"): [other.strip("`") for other in others] for cell, *others in cells}


def test_the_table_of_events_has_exactly_the_event_types() -> None:
    assert list(rows("event")) == [event_type.__name__ for event_type in EVENT_TYPES]


@pytest.mark.parametrize("event_type", EVENT_TYPES, ids=lambda event_type: event_type.type)
def test_each_event_is_described_as_it_is(event_type: type[Event]) -> None:
    rule = ROUTES[event_type]
    assert rows("event")[event_type.__name__][:-1] == [
        event_type.type_name(),
        rule.sender.value,
        rule.exchange,
        rule.routing_key,
        "yes" if event_type.durable else "no",
    ]


@pytest.mark.parametrize("exchange", shared_topology().exchanges, ids=lambda exchange: exchange.name)
def test_each_exchange_is_described_as_it_is(exchange: Exchange) -> None:
    assert rows("exchange")[exchange.name][0] == exchange.kind.value


def test_the_table_of_queues_has_exactly_the_queues() -> None:
    written = {name.strip(" `") for cell in rows("queue") for name in cell.split(",")}
    assert written == {queue.name for queue in QUEUES}


@pytest.mark.parametrize("queue", QUEUES, ids=lambda queue: queue.name)
def test_each_queue_is_described_as_it_is(queue: Queue) -> None:
    described = next(cells for names, cells in rows("queue").items() if queue.name in names)
    assert described[0] == (f"{queue.kind.value}, exclusive" if queue.exclusive else queue.kind.value)
    if queue.max_length is not None:
        assert described[2].startswith(f"the newest {queue.max_length:,}")
    if queue.delivery_limit is not None:
        assert f"more than {queue.delivery_limit} times" in described[2]


def test_every_header_is_described() -> None:
    moment = next(event for event in EXAMPLES if event.type == "ktrdr.training.requested").requested_at  # type: ignore[attr-defined]  # which has it
    written = {name.strip(" `") for cell in rows("header") for name in cell.split(",")}
    used = {REASON_HEADER, FROM_QUEUE_HEADER, FROM_USER_HEADER}
    for event in EXAMPLES:
        used |= set(encode(Envelope(event, "id", "sender", moment, traceparent="00")).headers)
    assert written == used


def test_the_limits_are_the_real_ones() -> None:
    limits = PAGE[PAGE.index("### Limits") : PAGE.index("## Topology")]
    for limit in (
        f"over {codec.MAX_BODY_BYTES // MIB} MiB",
        f"more than {codec.MAX_CONTENT_BYTES // MIB} MiB",
        f"{MAX_VALUES:,} values",
        f"deeper than {MAX_DEPTH}",
    ):
        assert limit in limits
    assert f"inline up to {MAX_INLINE_BYTES // MIB} MiB" in PAGE
