"""The drill on a broker that keeps the promises."""

from dataclasses import replace

import pytest

from ktrdr.drill.catalog import DRILLS
from ktrdr.drill.pace import Pace
from ktrdr.drill.promises.consumers import HELD_DRILL, hold
from ktrdr.drill.scene import Kept, Scene
from tests.broker.drill_cases import QUICK, check_nothing_is_left, drill, outcomes, result_of
from tests.broker.fixtures import StartNode
from tests.broker.node import PrivateNode
from tests.broker.node_config import NodeConfig

pytestmark = [pytest.mark.broker, pytest.mark.timeout(300)]


async def test_what_needs_no_agent_passes_and_leaves_nothing(private_node: PrivateNode) -> None:
    names = ("unroutable", "confirmed", "large", "consumer-cancelled", "figures")
    report = await drill(private_node.amqp_url(), *names)
    expected = dict.fromkeys(("permissions", *names), "passed") | {"figures": "measured"}
    assert outcomes(report) == expected
    assert result_of(report, "figures").figures["confirm_p50_ms"] > 0
    check_nothing_is_left(private_node, report)


@pytest.mark.fault
async def test_a_cancellation_and_a_damaged_model_pass_and_leave_nothing(private_node: PrivateNode) -> None:
    report = await drill(private_node.amqp_url(), "cancelled", "truncated")
    assert outcomes(report) == dict.fromkeys(("permissions", "cancelled", "truncated"), "passed")
    check_nothing_is_left(private_node, report)


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.fault
async def test_every_promise_holds_on_a_broker_as_it_comes(private_node: PrivateNode) -> None:
    url = private_node.management_url.replace("http://", "http://guest:guest@")
    report = await drill(private_node.amqp_url(), management_url=url)
    expected = {
        each.name: "measured" if each.only_measures else "passed" for each in DRILLS if not each.is_long
    }
    ended = outcomes(report)
    assert ended.pop("consumer-timeout").startswith("skipped")
    assert ended == expected
    check_nothing_is_left(private_node, report)


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.fault
async def test_agents_behind_tls_are_cut_off_and_killed_alike(private_node: PrivateNode) -> None:
    url = f"{private_node.amqps_url()}?cafile={private_node.authority}"
    report = await drill(url, "cut-off", "killed")
    assert outcomes(report) == dict.fromkeys(("permissions", "cut-off", "killed"), "passed")
    assert "over TLS" in result_of(report, "permissions").detail
    check_nothing_is_left(private_node, report)


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.fault
async def test_a_lease_that_is_shorter_than_a_cut_breaks_the_promise(private_node: PrivateNode) -> None:
    report = await drill(private_node.amqp_url(), "cut-off", pace=Pace(lease_s=2.0))
    assert "2 attempts" in outcomes(report)["cut-off"] or "3 attempts" in outcomes(report)["cut-off"]
    check_nothing_is_left(private_node, report)


@pytest.mark.long
@pytest.mark.slow
async def test_a_consumer_that_the_broker_loses_patience_with_consumes_again(start_node: StartNode) -> None:
    node = start_node(NodeConfig(consumer_timeout_ms=1000))

    async def hold_for_a_second(scene: Scene) -> Kept:
        return await hold(scene, 1.0)

    quick = replace(HELD_DRILL, run=hold_for_a_second, is_long=False)
    report = await drill(node.amqp_url(), "unroutable", drills=(DRILLS[0], quick), pace=QUICK)
    assert outcomes(report) == {"permissions": "passed", "consumer-timeout": "passed"}
    check_nothing_is_left(node, report)
