"""Where each event goes, and that the declared queues take it."""

import pytest

from ktrdr.bus.matching import binding_matches
from ktrdr.bus.topology import (
    BACKEND_EVENTS,
    CONTROL,
    EVENTS,
    JOURNAL,
    REQUESTS,
    ROUTES,
    Queue,
    QueueKind,
    Route,
    Topology,
    agent_topology,
    control_queue,
    lane_queue,
    logs_queue,
    logs_topology,
    presence_queue,
    presence_topology,
    progress_queue,
    progress_topology,
    route,
    shared_topology,
)
from ktrdr.events import EVENT_TYPES, Event
from tests.unit.events_cases import EXAMPLES, example

EVERYBODYS = (
    shared_topology(),
    agent_topology("host-a"),
    progress_topology("vm.1"),
    presence_topology("vm.1"),
    logs_topology("vm.1"),
)


def takers(where: Route, topology: Topology) -> set[str]:
    kinds = {exchange.name: exchange.kind for exchange in shared_topology().exchanges}
    return {
        binding.queue
        for binding in topology.bindings
        if binding.exchange == where.exchange
        and binding_matches(kinds[where.exchange], binding.routing_key, where.routing_key)
    }


def test_every_event_type_has_one_route() -> None:
    assert list(ROUTES) == list(EVENT_TYPES)


@pytest.mark.parametrize("event", EXAMPLES, ids=lambda event: event.type)
def test_every_event_reaches_the_queues_that_it_is_meant_for(event: Event) -> None:
    expected = {
        "ktrdr.training.requested": {lane_queue("gpu")},
        "ktrdr.training.progress": {progress_queue("vm.1"), JOURNAL},
        "ktrdr.training.logged": {logs_queue("vm.1")},
        "ktrdr.agent.presence": {presence_queue("vm.1")},
        "ktrdr.control.cancel_requested": {control_queue("host-a")},
        "ktrdr.training.model_persisted": {control_queue("host-a")},
        "ktrdr.training.model_discarded": {control_queue("host-a")},
    }
    where = route(event)
    found = set().union(*(takers(where, topology) for topology in EVERYBODYS))
    assert found == expected.get(event.type, {BACKEND_EVENTS, JOURNAL})


def test_a_route_names_the_operation_and_the_kind() -> None:
    assert route(example("ktrdr.training.failed")) == Route(EVENTS, "training.op-1.failed", mandatory=True)
    assert route(example("ktrdr.training.progress")) == Route(
        EVENTS, "training.op-1.progress", mandatory=False
    )
    assert route(example("ktrdr.training.requested")) == Route(REQUESTS, "gpu", mandatory=True)
    assert route(example("ktrdr.control.cancel_requested")) == Route(
        CONTROL, "training.op-1.cancel_requested", mandatory=False
    )


def test_a_request_for_a_lane_that_was_not_declared_has_no_taker() -> None:
    request = example("ktrdr.training.requested").model_copy(update={"lane": "tpu"})
    assert takers(route(request), shared_topology()) == set()
    assert takers(route(request), shared_topology(lanes=("tpu",))) == {lane_queue("tpu")}


def test_an_event_without_a_route_is_an_error() -> None:
    class Unheard(Event):
        type = "ktrdr.unheard"

    with pytest.raises(ValueError, match=r"ktrdr\.unheard\.v1 has no route"):
        route(Unheard())


def test_what_may_be_lost_waits_in_no_queue_that_outlives_its_reader() -> None:
    may_be_lost = [route(event) for event in EXAMPLES if not event.durable]
    assert {queue for where in may_be_lost for queue in takers(where, shared_topology())} == {JOURNAL}
    for topology, newest in (
        (progress_topology("vm.1"), 1000),
        (presence_topology("vm.1"), 1000),
        (logs_topology("vm.1"), 200),
    ):
        assert [(queue.exclusive, queue.max_length) for queue in topology.queues] == [(True, newest)]


def test_no_line_of_a_log_is_where_results_are() -> None:
    assert takers(route(example("ktrdr.training.logged")), shared_topology()) == set()


def test_what_cannot_be_read_is_dead_lettered_from_every_queue_but_the_last() -> None:
    queues = [queue for topology in EVERYBODYS for queue in topology.queues]
    without = {q.name for q in queues if not (q.dead_letter_exchange or q.reject_exchange)}
    assert without == {JOURNAL, "ktrdr.dead-letters"}


@pytest.mark.parametrize(
    ("kind", "arguments", "message"),
    [
        (QueueKind.QUORUM, {"exclusive": True}, "exclusive"),
        (QueueKind.CLASSIC, {"delivery_limit": 3}, "delivery limit"),
        (QueueKind.STREAM, {"delivery_limit": 3}, "delivery limit"),
        (QueueKind.STREAM, {"dead_letter_exchange": "dead"}, "stream"),
        (QueueKind.STREAM, {"reject_exchange": "dead"}, "stream"),
    ],
)
def test_a_queue_that_no_broker_can_declare_is_refused(
    kind: QueueKind, arguments: dict[str, bool | int | str], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        Queue("work", kind, **arguments)
