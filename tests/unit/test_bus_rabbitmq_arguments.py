"""Names and arguments on the wire."""

import pytest

from ktrdr.bus.rabbitmq_arguments import WireNames, queue_arguments, wire_name
from ktrdr.bus.topology import Queue, QueueKind


@pytest.mark.parametrize(
    ("queue", "arguments"),
    [
        (Queue("ktrdr.q"), {"x-queue-type": "quorum"}),
        (
            Queue("ktrdr.q", delivery_limit=5, dead_letter_exchange="ktrdr.dead"),
            {
                "x-queue-type": "quorum",
                "x-delivery-limit": 5,
                "x-dead-letter-exchange": "mine.dead",
                "x-dead-letter-strategy": "at-least-once",
                "x-overflow": "reject-publish",
            },
        ),
        (
            # To keep what is dead-lettered takes a queue that refuses; one that is bounded drops.
            Queue("ktrdr.q", max_length=10, dead_letter_exchange="ktrdr.dead"),
            {
                "x-queue-type": "quorum",
                "x-max-length": 10,
                "x-dead-letter-exchange": "mine.dead",
                "x-overflow": "drop-head",
            },
        ),
        (
            Queue("ktrdr.q", QueueKind.CLASSIC, max_length=10, reject_exchange="ktrdr.dead"),
            {"x-queue-type": "classic", "x-max-length": 10, "x-overflow": "drop-head"},
        ),
        (
            Queue("ktrdr.q", QueueKind.STREAM, max_length=1000),
            {
                "x-queue-type": "stream",
                "x-max-length-bytes": 10_240_000,
                "x-stream-max-segment-size-bytes": 1_024_000,
            },
        ),
        (Queue("ktrdr.q", QueueKind.STREAM), {"x-queue-type": "stream"}),
    ],
)
def test_a_queue_is_declared_with_arguments(queue: Queue, arguments: dict[str, object]) -> None:
    assert queue_arguments(queue, "mine") == arguments


@pytest.mark.parametrize(
    ("name", "wire"),
    [
        ("ktrdr.lane.any", "mine.lane.any"),
        ("ktrdr.", "mine."),
        ("ktrdrs.x", "ktrdrs.x"),
        ("", ""),
        ("x", "x"),
    ],
)
def test_a_prefix_replaces_the_first_word_and_back(name: str, wire: str) -> None:
    assert wire_name(name, "mine") == wire
    assert wire_name(name) == name
    names = WireNames("mine")
    assert (names.wire(name), names.own(wire)) == (wire, name)


def test_only_for_the_default_exchange_a_routing_key_is_a_name() -> None:
    names = WireNames("mine")
    assert names.routing_key("", "ktrdr.q") == "mine.q"
    assert names.routing_key("ktrdr.in", "ktrdr.q") == "ktrdr.q"
