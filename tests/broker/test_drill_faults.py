"""The drill on brokers that break promises, and drills that are broken off."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from ktrdr.drill.names import FAMILY
from ktrdr.errors import AccessRefusedError, BusUnavailableError
from tests.broker.drill_cases import (
    agents_of,
    check_nothing_is_left,
    drill,
    names_on,
    outcomes,
    policy,
    result_of,
)
from tests.broker.node import PrivateNode
from tests.broker.ports import free_ports
from tests.e2e.waiting import eventually

pytestmark = [pytest.mark.broker, pytest.mark.timeout(120)]

WEAK = "weak"


async def test_a_user_who_may_not_declare_is_told_which_permissions_are_missing(
    private_node: PrivateNode,
) -> None:
    private_node.management.add_user(WEAK, WEAK)
    private_node.management.set_permissions(WEAK, configure=r"^ktrdr\.", write=".*", read=".*")
    report = await drill(private_node.amqp_url(user=WEAK), "unroutable", "cancelled")
    result = result_of(report, "permissions")
    assert result.outcome == "failed"
    assert "declaring an exchange" in result.detail
    assert "rabbitmqctl set_permissions -p / drill '^ktrdr-drill-'" in result.changes[0]
    for name in ("unroutable", "cancelled"):
        assert result_of(report, name).outcome == "unchecked"
    check_nothing_is_left(private_node, report)


async def test_a_user_with_the_permissions_that_are_advised_passes(private_node: PrivateNode) -> None:
    private_node.management.add_user(WEAK, WEAK)
    private_node.management.set_permissions(
        WEAK, configure=f"^{FAMILY}", write=rf"^({FAMILY}|amq\.default$)", read=f"^{FAMILY}"
    )
    report = await drill(private_node.amqp_url(user=WEAK), "unroutable", "confirmed", "consumer-cancelled")
    assert set(outcomes(report).values()) == {"passed"}
    check_nothing_is_left(private_node, report)


@pytest.mark.parametrize("definition", [{"max_length": 1}, {"message_ttl": 50}])
async def test_a_policy_that_loses_messages_is_noticed(
    private_node: PrivateNode, definition: dict[str, int]
) -> None:
    with policy(private_node, **definition):
        report = await drill(private_node.amqp_url(), "confirmed")
    result = result_of(report, "confirmed")
    assert result.outcome == "failed"
    assert "were gone" in result.detail
    assert "list_policies" in result.changes[0]
    check_nothing_is_left(private_node, report)


async def test_a_policy_that_swallows_what_no_queue_takes_is_noticed(private_node: PrivateNode) -> None:
    sink = f"{FAMILY}sink"
    private_node.management.request("PUT", "queues", "/", sink, json={})
    private_node.management.request("POST", "bindings", "/", "e", "amq.fanout", "q", sink, json={})
    try:
        with policy(private_node, alternate_exchange="amq.fanout"):
            report = await drill(private_node.amqp_url(), "unroutable")
    finally:
        private_node.management.delete_queue(sink)
    assert result_of(report, "unroutable").outcome == "failed"
    assert "alternate-exchange" in result_of(report, "unroutable").changes[0]


async def test_policies_on_the_names_in_use_are_named_with_what_they_do(private_node: PrivateNode) -> None:
    management = private_node.management
    url = private_node.management_url.replace("http://", "http://guest:guest@")
    # Of two that match, the one of more priority counts alone; an operator's comes on top.
    for name, pattern, priority, definition in (
        ("harmless", "^trading\\.lane\\.", 2, {"ha-mode": "all"}),
        ("forgetful", "^trading\\.", 1, {"message-ttl": 86_400_000}),
    ):
        body = {"pattern": pattern, "definition": definition, "apply-to": "queues", "priority": priority}
        management.request("PUT", "policies", "/", name, json=body)
    body = {"pattern": "lane", "definition": {"max-length": 10_000}, "apply-to": "queues"}
    management.request("PUT", "operator-policies", "/", "strict", json=body)
    try:
        report = await drill(private_node.amqp_url(), "policies", management_url=url, prefix_in_use="trading")
        elsewhere = await drill(
            private_node.amqp_url(), "policies", management_url=url, prefix_in_use="other"
        )
    finally:
        for name in ("harmless", "forgetful"):
            management.request("DELETE", "policies", "/", name)
        management.request("DELETE", "operator-policies", "/", "strict")
    result = result_of(report, "policies")
    assert result.outcome == "failed"
    assert "'strict' loses messages of trading.lane.any, trading.lane.gpu (max-length 10000)" in result.detail
    assert "'forgetful' loses messages of trading.backend.returned" in result.detail
    assert "harmless" not in result.detail
    assert any("clear_operator_policy -p / strict" in change for change in result.changes)
    assert any("clear_policy -p / forgetful" in change for change in result.changes)
    assert "'strict'" in result_of(elsewhere, "policies").detail
    assert "forgetful" not in result_of(elsewhere, "policies").detail


async def test_without_the_management_api_policies_are_not_checked(private_node: PrivateNode) -> None:
    report = await drill(private_node.amqp_url(), "policies")
    assert result_of(report, "policies").outcome == "unchecked"
    assert "--management" in result_of(report, "policies").changes[0]


async def test_a_broker_that_takes_no_large_messages_says_what_to_set(private_node: PrivateNode) -> None:
    # The node's limit is that of RabbitMQ 4.
    report = await drill(private_node.amqp_url(), "large", inline_limit_bytes=20 * 1024 * 1024)
    result = result_of(report, "large")
    assert result.outcome == "failed"
    assert "KTRDR_INLINE_LIMIT_BYTES" in result.changes[0]
    check_nothing_is_left(private_node, report)


@pytest.mark.fault
async def test_a_broker_out_of_memory_is_told_from_one_that_is_away(private_node: PrivateNode) -> None:
    private_node.set_memory_alarm(True)
    try:
        report = await drill(private_node.amqp_url(), "unroutable")
    finally:
        private_node.set_memory_alarm(False)
    result = result_of(report, "permissions")
    assert result.outcome == "failed"
    assert "rabbitmq-diagnostics alarms" in result.changes[0]


async def test_a_broker_that_is_away_is_an_error() -> None:
    (port,) = free_ports(1)
    with pytest.raises(BusUnavailableError, match="There is no connection"):
        await drill(f"amqp://guest:guest@127.0.0.1:{port}/")


async def test_a_wrong_password_is_an_error(private_node: PrivateNode) -> None:
    with pytest.raises(AccessRefusedError, match="does not let 'guest' in"):
        await drill(private_node.amqp_url(password="wrong"))


async def test_a_drill_that_is_stopped_cleans_up(private_node: PrivateNode) -> None:
    report = await drill(private_node.amqp_url(), "confirmed", "cancelled", "killed", stop_at="cancelled")
    assert outcomes(report) == {
        "permissions": "passed",
        "confirmed": "passed",
        "cancelled": "skipped: interrupted",
        "killed": "skipped: interrupted",
    }
    check_nothing_is_left(private_node, report)


@pytest.mark.fault
async def test_the_next_drill_removes_what_a_killed_one_has_left(private_node: PrivateNode) -> None:
    killed = _start("--only", "cancelled", url=private_node.amqp_url())
    try:
        eventually(
            lambda: any(name.endswith(".drill.tap") for name in names_on(private_node)),
            within_s=60.0,
            otherwise="the drill has begun",
        )
        prefix = names_on(private_node)[0].partition(".")[0]
        eventually(lambda: agents_of(prefix), within_s=60.0, otherwise="its agents run")
    finally:
        killed.kill()
        killed.communicate()
    eventually(lambda: not agents_of(prefix), within_s=60.0, otherwise="its agents have died with it")
    assert names_on(private_node, prefix) != []
    report = await drill(private_node.amqp_url(), "unroutable")
    assert report.cleared == (prefix,)
    assert names_on(private_node, prefix) == []
    assert not (Path(tempfile.gettempdir()) / prefix).exists()


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.fault
async def test_a_broker_that_goes_away_ends_the_drill_and_is_cleared_by_the_next(
    private_node: PrivateNode,
) -> None:
    report = await drill(
        private_node.amqp_url(), "confirmed", "cancelled", "killed", when=("confirmed", private_node.kill)
    )
    assert result_of(report, "confirmed").outcome == "failed"
    for name in ("cancelled", "killed"):
        assert "gone away" in result_of(report, name).detail
    assert f"{report.prefix}.lane.any" in report.left
    await asyncio.to_thread(private_node.start)
    assert names_on(private_node, report.prefix) != []
    following = await drill(private_node.amqp_url(), "unroutable")
    assert following.cleared == (report.prefix,)
    assert names_on(private_node, report.prefix) == []
    assert not (Path(tempfile.gettempdir()) / report.prefix).exists()


async def test_old_names_of_drills_on_other_machines_are_removed_and_nothing_else(
    private_node: PrivateNode,
) -> None:
    now = datetime.now(UTC)
    old = f"{FAMILY}{now - timedelta(hours=2):%Y%m%d%H%M%S}-abcdefgh"
    young = f"{FAMILY}{now - timedelta(minutes=5):%Y%m%d%H%M%S}-abcdefgh"
    not_ours = (f"{FAMILY}20990101-x.lane.any", f"{FAMILY}99999999999999-x.lane.any", "ktrdr.lane.any")
    for name in (f"{old}.lane.any", f"{old}.drill.kept", f"{young}.lane.any", *not_ours):
        private_node.management.request("PUT", "queues", "/", name, json={})
    private_node.management.request("PUT", "exchanges", "/", f"{old}.events", json={"type": "topic"})
    url = private_node.management_url.replace("http://", "http://guest:guest@")
    try:
        report = await drill(private_node.amqp_url(), "unroutable", management_url=url)
        assert report.cleared == (old,)
        assert names_on(private_node, old) == []
        assert names_on(private_node, young) == [f"{young}.lane.any"]
        assert set(not_ours) <= set(names_on(private_node, "ktrdr"))
    finally:
        for name in (f"{young}.lane.any", *not_ours):
            private_node.management.delete_queue(name)


def test_the_command_says_by_its_exit_status_whether_a_promise_is_broken(private_node: PrivateNode) -> None:
    good = _start("--only", "unroutable", "--json", url=private_node.amqp_url())
    told, _ = good.communicate(timeout=60)
    assert good.returncode == 0
    assert [each["outcome"] for each in json.loads(told)["drills"]] == ["passed", "passed"]
    with policy(private_node, max_length=1):
        bad = _start("--only", "confirmed", url=private_node.amqp_url())
        told, _ = bad.communicate(timeout=60)
    assert bad.returncode == 1
    assert b"\xe2\x9c\x97 Messages that the broker has confirmed" in told
    assert b"change: Look for a policy" in told


@pytest.mark.fault
def test_ctrl_c_cleans_up(private_node: PrivateNode) -> None:
    command = _start("--only", "confirmed", url=private_node.amqp_url())
    eventually(lambda: names_on(private_node), within_s=60.0, otherwise="the drill has begun")
    command.send_signal(signal.SIGINT)
    command.communicate(timeout=60)
    assert command.returncode == 130
    assert names_on(private_node) == []


def _start(*arguments: str, url: str) -> "subprocess.Popen[bytes]":
    # By the environment, as the command line can be read by every user.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("KTRDR_")}
    return subprocess.Popen(
        [sys.executable, "-m", "ktrdr.cli.main", "broker", "drill", *arguments],
        env={**environment, "KTRDR_BROKER_URL": url},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
