"""Names that a drill may touch, and no others."""

from datetime import UTC, datetime
from typing import Any, cast

import pytest

from ktrdr.bus.topology import shared_topology
from ktrdr.drill.catalog import DRILLS, FIRST, chosen
from ktrdr.drill.names import FAMILY, born, exchanges_of, new_prefix, prefix_of, queues_of
from ktrdr.drill.scratch_broker import ScratchBroker, Server
from ktrdr.errors import SettingsError
from ktrdr.ids import RandomIds
from ktrdr.settings import Settings

MADE = datetime(2026, 11, 25, 2, 25, 31, tzinfo=UTC)


def test_a_prefix_tells_when_it_was_made_and_is_one_that_settings_accept() -> None:
    prefix = new_prefix(MADE, RandomIds())
    assert born(prefix) == MADE
    assert prefix_of(f"{prefix}.lane.any") == prefix_of(prefix) == prefix
    assert Settings(broker_prefix=prefix).broker_prefix == prefix


@pytest.mark.parametrize(
    "name",
    [
        "ktrdr.lane.any",
        "ktrdr-drill.lane.any",
        f"{FAMILY}2026-x.lane.any",
        f"{FAMILY}20261125022531-.lane.any",
        f"{FAMILY}20261125022531-ABC.lane.any",
        f"my-{FAMILY}20261125022531-abc.lane.any",
    ],
)
def test_names_of_others_have_no_prefix_of_a_drill(name: str) -> None:
    assert prefix_of(name) is None


def test_a_prefix_whose_time_is_none_is_never_old() -> None:
    assert born(f"{FAMILY}99999999999999-abc") is None


def test_every_name_of_the_topology_is_known_to_whoever_clears_up() -> None:
    prefix = new_prefix(MADE, RandomIds())
    topology = shared_topology()
    queues = {f"{prefix}.{queue.name.removeprefix('ktrdr.')}" for queue in topology.queues}
    exchanges = {f"{prefix}.{each.name.removeprefix('ktrdr.')}" for each in topology.exchanges}
    assert queues <= set(queues_of(prefix))
    assert exchanges <= set(exchanges_of(prefix))
    assert all(prefix_of(name) == prefix for name in (*queues_of(prefix), *exchanges_of(prefix)))


@pytest.mark.parametrize("name", ["orders", "ktrdr-drill-20261125022531-other.lane.any", "", "amq.topic"])
def test_what_is_not_the_drills_cannot_even_be_named(name: str) -> None:
    prefix = new_prefix(MADE, RandomIds())
    broker = ScratchBroker(cast(Any, None), (), prefix, Server("RabbitMQ", "3.10.8"))
    assert broker.wire("ktrdr.lane.any") == f"{prefix}.lane.any"
    with pytest.raises(ValueError, match="not a name of this drill"):
        broker.wire(name)


def test_a_prefix_that_is_in_use_cannot_be_cleared() -> None:
    broker = ScratchBroker(cast(Any, None), (), "ktrdr", Server("RabbitMQ", "3.10.8"))
    with pytest.raises(ValueError, match="not a name of this drill"):
        broker.wire("ktrdr.lane.any")


def test_drills_are_chosen_by_name_in_their_order_and_never_without_the_first() -> None:
    assert [drill.name for drill in chosen(["killed", "unroutable"])] == [FIRST.name, "unroutable", "killed"]
    assert chosen([]) == DRILLS
    with pytest.raises(SettingsError, match="no drill 'nonsense'"):
        chosen(["nonsense"])


@pytest.mark.parametrize(
    ("version", "release"),
    [("3.10.8", (3, 10, 8)), ("4.1.0-rc.1", (4, 1, 0)), ("3.13.1+20", (3, 13, 1)), ("1.x", ())],
)
def test_a_server_says_its_release(version: str, release: tuple[int, ...]) -> None:
    assert Server("RabbitMQ", version).release == release
