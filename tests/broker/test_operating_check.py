"""`ktrdr broker setup` and `ktrdr broker check`, on a real broker."""

import asyncio
import json
import secrets
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from ktrdr.bus.definitions import definitions_json
from ktrdr.bus.rabbitmq_arguments import queue_arguments
from ktrdr.bus.topology import shared_topology
from ktrdr.events.message import Message
from tests.broker.node import PrivateNode
from tests.broker.operating_cases import Operator, operating, wait_for_alarm
from tests.e2e.waiting import eventually

pytestmark = pytest.mark.broker

LANE = "ktrdr.lane.gpu"


DECLARED = len(shared_topology().exchanges) + len(shared_topology().queues)


@pytest.fixture
def operator(private_node: PrivateNode, monkeypatch: pytest.MonkeyPatch) -> Iterator[Operator]:
    with operating(private_node, monkeypatch) as someone:
        yield someone


def of(findings: list[dict[str, Any]], mark: str) -> dict[str, str]:
    return {f"{each['part']} {each['name']}": each["detail"] for each in findings if each["mark"] == mark}


def test_setup_creates_what_is_missing_and_says_so(operator: Operator) -> None:
    created = [finding for finding in operator.ask("broker", "setup") if finding["detail"] == "created"]
    assert len(created) == DECLARED
    again = {each["part"]: each["detail"] for each in operator.ask("broker", "setup")}
    assert again == {"exchange": "was there", "queue": "was there", "binding": "is there"}
    assert of(operator.ask("broker", "check", *operator.management), "wrong") == {}


def test_check_creates_nothing(operator: Operator) -> None:
    for options in ((), operator.management):
        findings = operator.ask("broker", "check", *options, status=1)
        assert set(of(findings, "wrong").values()) == {"is missing"}
        assert all("ktrdr broker setup" in each["fix"] for each in findings if each["mark"] == "wrong")
    assert operator.names() == set()


def replace_queue(operator: Operator, name: str, **arguments: object) -> None:
    """Have a queue with other arguments than it should have."""
    operator.node.management.delete_queue(operator.wire(name))
    body = {"durable": True, "arguments": arguments}
    operator.node.management.request("PUT", "queues", "/", operator.wire(name), json=body)


def test_a_queue_that_differs_is_explained_with_what_to_do(operator: Operator) -> None:
    operator.run("broker", "setup")
    as_it_should_be = next(queue for queue in shared_topology().queues if queue.name == LANE)
    replace_queue(
        operator, LANE, **queue_arguments(replace(as_it_should_be, delivery_limit=7), operator.prefix)
    )
    wrong = [finding for finding in operator.ask("broker", "check", status=1) if finding["mark"] == "wrong"]
    assert [finding["name"] for finding in wrong] == [operator.wire(LANE)]
    assert "has x-delivery-limit 7, wanted 5" in wrong[0]["detail"]
    how = f"rabbitmqctl delete_queue {operator.wire(LANE)}"
    assert wrong[0]["fix"] == f"Delete it when it is empty ({how}), then: ktrdr broker setup"
    assert of(operator.ask("broker", "setup", status=1), "wrong")
    operator.node.management.delete_queue(operator.wire(LANE))
    operator.run("broker", "setup")
    operator.run("broker", "check", *operator.management)


def test_with_the_management_api_every_difference_of_a_queue_is_told(operator: Operator) -> None:
    operator.run("broker", "setup")
    replace_queue(operator, LANE, **{"x-queue-type": "quorum", "x-max-length": 3})
    wrong = of(operator.ask("broker", "check", *operator.management, status=1), "wrong")
    detail = wrong[f"queue {operator.wire(LANE)}"]
    for words in (
        "x-delivery-limit not set, wanted 5",
        f"x-dead-letter-exchange not set, wanted {operator.prefix}.returned",
        "x-max-length 3, wanted not set",
    ):
        assert words in detail


def test_an_exchange_that_differs_is_explained(operator: Operator) -> None:
    name = operator.wire("ktrdr.events")
    operator.node.management.request("PUT", "exchanges", "/", name, json={"type": "direct", "durable": True})
    findings = operator.ask("broker", "setup", status=1)
    assert of(findings, "wrong")[f"exchange {name}"] == "has type direct, wanted topic"
    # The rest is set up all the same, but for what needs it.
    assert of(findings, "ok")[f"queue {operator.wire(LANE)}"] == "created"


def test_a_binding_that_is_missing_is_seen_through_the_management_api_only(operator: Operator) -> None:
    operator.run("broker", "setup")
    requests, lane = operator.wire("ktrdr.requests"), operator.wire(LANE)
    operator.node.management.request("DELETE", "bindings", "/", "e", requests, "q", lane, "gpu")
    assert "binding all" in of(operator.ask("broker", "check"), "note")
    found = operator.ask("broker", "check", *operator.management, status=1)
    assert of(found, "wrong") == {f"binding {requests} → {lane} (gpu)": "is missing"}
    operator.run("broker", "setup")
    operator.run("broker", "check", *operator.management)


def test_what_nobody_declares_is_pointed_out_and_no_error(operator: Operator) -> None:
    operator.run("broker", "setup")
    events = operator.wire("ktrdr.backend.events")
    replace_queue(operator, "ktrdr.old", **{"x-queue-type": "quorum"})
    replace_queue(operator, "ktrdr.lane.tpu", **{"x-queue-type": "quorum"})
    replace_queue(operator, "ktrdr.backend.progress", **{"x-queue-type": "quorum"})
    body = {"routing_key": "old.#", "arguments": {}}
    operator.node.management.request(
        "POST", "bindings", "/", "e", operator.wire("ktrdr.events"), "q", events, json=body
    )
    notes = of(operator.ask("broker", "check", *operator.management), "note")
    assert notes == {
        f"leftover queue {operator.wire('ktrdr.backend.progress')}": "nobody declares it",
        f"leftover queue {operator.wire('ktrdr.old')}": "nobody declares it",
        f"leftover queue {operator.wire('ktrdr.lane.tpu')}": "nobody declares it",
        f"leftover binding {operator.wire('ktrdr.events')} → {events} (old.#)": "nobody declares it",
    }
    assert of(operator.ask("broker", "check"), "note").keys() == {"binding all"}


def test_a_policy_that_loses_messages_is_told(operator: Operator) -> None:
    operator.run("broker", "setup")
    name = f"{operator.prefix}-tidy"
    operator.node.management.set_policy(name, f"^{operator.prefix}[.]lane", {"message-ttl": 60_000})
    harmless = {"queue-leader-locator": "balanced"}
    operator.node.management.set_policy(f"{name}-2", f"^{operator.prefix}[.]dead", harmless)

    def applies() -> bool:
        return any(queue.get("policy") == name for queue in operator.node.management.queues())

    try:
        eventually(applies, within_s=60.0, otherwise="the policy applies")
        found = operator.ask("broker", "check", *operator.management, status=1)
        wrong = [(each["name"], each["detail"]) for each in found if each["mark"] == "wrong"]
        assert wrong == [
            (name, f"sets message-ttl 60000 on {operator.wire(lane)}") for lane in ("ktrdr.lane.any", LANE)
        ]
    finally:
        for each in (name, f"{name}-2"):
            operator.node.management.request("DELETE", "policies", "/", each)


def test_a_lane_of_ones_own_is_set_up_and_checked_when_it_is_named(operator: Operator) -> None:
    operator.run("broker", "setup", "--lane", "tpu")
    assert operator.wire("ktrdr.lane.tpu") in operator.names()
    findings = operator.ask("broker", "check", *operator.management, "--lane", "tpu")
    assert of(findings, "note") == {}


async def publish(operator: Operator, exchange: str, key: str, number: int) -> None:
    bus = operator.bus()
    for each in range(number):
        message = Message(b"", f"m{each}", "test.v1")
        await bus.publish(message, exchange=exchange, routing_key=key, mandatory=True, timeout_s=10.0)
    await bus.close()


class TestWhatIsStuck:
    @pytest.fixture(autouse=True)
    def topology(self, operator: Operator) -> None:
        operator.run("broker", "setup")

    def note(self, operator: Operator, name: str) -> dict[str, Any]:
        findings = operator.ask("broker", "check")
        (found,) = [each for each in findings if each["name"] == operator.wire(name)]
        return dict(found)

    def test_requests_that_no_agent_takes(self, operator: Operator) -> None:
        asyncio.run(publish(operator, "ktrdr.requests", "gpu", 2))
        found = self.note(operator, LANE)
        assert (found["mark"], found["detail"]) == ("note", "quorum, 2 messages, 0 consumers")
        assert "ktrdr agent --lane gpu" in found["fix"]

    def test_events_that_no_backend_reads(self, operator: Operator) -> None:
        asyncio.run(publish(operator, "ktrdr.events", "training.op-1.failed", 1))
        found = self.note(operator, "ktrdr.backend.events")
        assert (found["mark"], found["fix"]) == ("note", "No backend is connected: ktrdr serve")

    def test_dead_letters(self, operator: Operator) -> None:
        asyncio.run(operator.bury(Message(b"", "m", "test.v1")))
        found = self.note(operator, "ktrdr.dead-letters")
        assert found["fix"] == "See what they are: ktrdr dead list"


def test_an_alarm_is_seen_through_the_management_api(operator: Operator) -> None:
    operator.run("broker", "setup")
    operator.node.set_memory_alarm(True)
    try:
        wait_for_alarm(operator.node, on=True)
        found = of(operator.ask("broker", "check", *operator.management, status=1), "wrong")
        assert "is out of memory" in found["broker alarm"]
    finally:
        operator.node.set_memory_alarm(False)
    wait_for_alarm(operator.node, on=False)
    operator.run("broker", "check", *operator.management)


def test_a_user_who_may_not_declare_is_told_what_can_be_told(operator: Operator) -> None:
    operator.run("broker", "setup")
    users = json.loads(definitions_json(prefix=operator.prefix, passwords={"agent": "agent-password"}))
    name = f"agent-{secrets.token_hex(4)}"
    management = operator.node.management
    management.add_user(name, "secret")
    rights = next(each for each in users["permissions"] if each["user"] == "agent")
    management.set_permissions(name, **{what: rights[what] for what in ("configure", "write", "read")})
    url = operator.node.amqp_url(user=name, password="secret")
    try:
        findings = operator.ask("broker", "check", "--broker", url)
        assert f"user {name}" in of(findings, "note")
        with_api = operator.ask("broker", "check", "--broker", url, *operator.management)
        assert of(with_api, "ok")[f"user {name}"].startswith("may declare ^(")
        assert of(with_api, "wrong") == {}
        refused = of(operator.ask("broker", "setup", "--broker", url), "wrong")
        assert refused == {}
        management.delete_queue(operator.wire(LANE))
        refused = of(operator.ask("broker", "setup", "--broker", url, status=1), "wrong")
        assert f"queue {operator.wire(LANE)}" in refused
    finally:
        management.delete_user(name)


def test_definitions_and_setup_agree(operator: Operator) -> None:
    operator.node.management.import_definitions(
        {
            key: value
            for key, value in json.loads(definitions_json(prefix=operator.prefix)).items()
            if key in ("exchanges", "queues", "bindings")
        }
    )
    assert of(operator.ask("broker", "check", *operator.management), "note") == {}
    assert {each["detail"] for each in operator.ask("broker", "setup")} == {"was there", "is there"}


def test_for_people_it_is_one_line_each_with_what_to_do_below(operator: Operator) -> None:
    said = operator.run("broker", "check", status=1)
    assert "✓ broker    version  RabbitMQ" in said.stdout
    assert f"✗ queue     {operator.wire(LANE)}  is missing" in said.stdout
    assert said.stdout.count("→ Create what is missing: ktrdr broker setup") == 1
    assert f"{DECLARED} things to put right." in said.stderr


def test_the_doctor_says_what_is_wrong_with_the_broker(operator: Operator) -> None:
    findings = operator.ask("doctor", status=1)
    (found,) = [finding for finding in findings if finding["subject"] == "broker"]
    assert found["health"] == "problem"
    assert found["detail"].startswith("RabbitMQ ")
    assert (
        f"exchange {operator.wire('ktrdr.requests')} is missing, and {DECLARED - 1} more" in found["detail"]
    )
    assert found["fix"] == "See: ktrdr broker check"


def test_a_refused_password_is_told_at_once(operator: Operator) -> None:
    url = operator.node.amqp_url(password="wrong")
    error = operator.ask("broker", "check", "--broker", url, status=1)["error"]
    assert error["type"] == "AccessRefusedError"
    assert "does not let 'guest' in" in error["message"]


def test_without_a_broker_in_the_settings_it_says_where_to_name_it(
    operator: Operator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("KTRDR_BROKER_URL")
    for command in (["broker", "check"], ["broker", "setup"], ["dead", "list"]):
        assert "KTRDR_BROKER_URL" in operator.run(*command, status=1).stderr


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("http://guest:wrong@{host}", "does not let guest see"),
        ("http://127.0.0.1:1", "There is no management API at http://127.0.0.1:1/"),
        ("127.0.0.1:15672", "There is no management API"),
    ],
)
def test_a_management_api_that_does_not_answer_is_told(operator: Operator, url: str, words: str) -> None:
    url = url.format(host=operator.node.management_url.removeprefix("http://"))
    said = operator.run("broker", "check", "--management", url, status=1).stderr
    assert words in said
    assert "wrong@" not in said
