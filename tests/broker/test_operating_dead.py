"""`ktrdr dead`, on a real broker."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from ktrdr.backend.store import OperationStore
from ktrdr.blobs.directory import DirectoryBlobStore
from ktrdr.bus.topology import BACKEND_EVENTS, lane_queue, shared_topology
from ktrdr.events import Envelope, encode
from ktrdr.events.message import Message
from ktrdr.settings import load_settings
from tests.broker.node import PrivateNode
from tests.broker.operating_cases import Operator, operating
from tests.unit.events_cases import example

pytestmark = pytest.mark.broker

ROOT = Path(__file__).parents[2]
HOSTILE = Message(
    b"\x1b[2J\x00\xff" * 200,
    "\x1b]0;owned\x07",
    "evil\x1b[31m.v1",
    headers={"summary": "\x1b[2Jcleared\u202e", "\x1b[1mname": "\x9bvalue"},
)


def event(kind: str, event_id: str, *, ago: timedelta = timedelta()) -> Message:
    said = example(f"ktrdr.training.{kind}")
    return encode(Envelope(said, event_id, "host-a@machine", datetime.now(UTC) - ago))


@pytest.fixture
def operator(private_node: PrivateNode, monkeypatch: pytest.MonkeyPatch) -> Iterator[Operator]:
    with operating(private_node, monkeypatch) as someone:
        someone.run("broker", "setup")
        yield someone


def bury(operator: Operator, *messages: Message, reason: str = "cannot be read") -> None:
    asyncio.run(operator.bury(*messages, reason=reason))


def ids(operator: Operator) -> list[str]:
    return [letter["id"] for letter in operator.ask("dead", "list")]


async def take_all(operator: Operator, queue: str) -> list[Message]:
    bus = operator.bus()
    taken = []
    while (delivery := await bus.get(queue)) is not None:
        taken.append(delivery.message)
        await delivery.ack()
    await bus.close()
    return taken


def test_a_list_says_what_where_why_and_when(operator: Operator) -> None:
    assert "No dead letters." in operator.run("dead", "list").stderr
    bury(operator, event("failed", "0192-1", ago=timedelta(minutes=5)), reason="unknown version")
    (letter,) = operator.ask("dead", "list")
    assert letter["id"] == letter["message_id"] == "0192-1"
    assert letter["type"] == "ktrdr.training.failed.v1"
    assert letter["operation_id"] == "op-1"
    assert letter["reason"] == "unknown version"
    assert letter["from_queue"] == BACKEND_EVENTS
    assert letter["sender"] == "host-a@machine"
    assert letter["user_id"] == "guest"
    assert letter["size_bytes"] > 50
    assert letter["summary"].startswith("attempt 2 failed")
    said = operator.run("dead", "list")
    for words in ("0192-1", "op-1", " · 5 min ", "died in ktrdr.backend.events: unknown version"):
        assert words in said.stdout
    assert "1 dead letter. Look: ktrdr dead show ID" in said.stderr


def test_looking_leaves_them_as_they_are(operator: Operator) -> None:
    names = [f"m{number}" for number in range(30)]
    bury(operator, *(event("failed", name) for name in names))
    for _ in range(3):
        assert ids(operator) == names
        operator.run("dead", "show", "m17")


def test_an_event_is_shown_readably_and_content_by_its_size(operator: Operator) -> None:
    bury(operator, event("model_ready", "0192-1"))
    (shown,) = operator.ask("dead", "show", "0192")
    assert shown["unreadable"] is None
    assert shown["event"]["manifest"]["strategy"] == "eurusd_momentum"
    assert shown["event"]["inline"]["data"].endswith(" bytes)")
    said = operator.run("dead", "show", "0192-1").stdout
    assert '"strategy": "eurusd_momentum"' in said
    assert "broker's user  guest" in said


def test_what_cannot_be_read_is_shown_without_obeying_it(operator: Operator) -> None:
    bury(operator, HOSTILE)
    (name,) = ids(operator)
    assert name.startswith("sha256-")
    (shown,) = operator.ask("dead", "show", name)
    assert shown["event"] is None
    assert "is not the type of an event" in shown["unreadable"]
    assert shown["body_begins_with_hex"].startswith("1b5b324a00ff")
    for arguments in (["dead", "list"], ["dead", "show", name], ["dead", "redrive", name]):
        said = operator.run(*arguments).output
        assert not [character for character in said if not character.isprintable() and character != "\n"]
    assert ids(operator) == []


def test_redriven_they_are_back_under_their_own_ids(operator: Operator) -> None:
    message = event("failed", "0192-1")
    bury(operator, message, event("failed", "0192-2"))
    (outcome,) = operator.ask("dead", "redrive", "0192-1")
    assert (outcome["id"], outcome["fate"], outcome["problem"]) == ("0192-1", "redriven", None)
    assert ids(operator) == ["0192-2"]
    (back,) = asyncio.run(take_all(operator, BACKEND_EVENTS))
    assert back == message
    assert "✓ 0192-2 put back to ktrdr.backend.events" in operator.run("dead", "redrive", "--all").stdout
    assert ids(operator) == []


def test_what_the_broker_has_dead_lettered_goes_back_too(operator: Operator) -> None:
    async def give_back_too_often() -> None:
        bus = operator.bus()
        message = event("failed", "0192-1")
        where = {"exchange": "ktrdr.events", "routing_key": "training.op-1.failed"}
        await bus.publish(message, **where, mandatory=True, timeout_s=60.0)
        while (delivery := await bus.get(BACKEND_EVENTS)) is not None:
            await delivery.nack()
        await bus.close()

    asyncio.run(give_back_too_often())
    (letter,) = operator.ask("dead", "list")
    assert (letter["reason"], letter["from_queue"]) == ("delivery_limit", BACKEND_EVENTS)
    operator.run("dead", "redrive", "--all", "--reason", "delivery_limit")
    assert [message.message_id for message in asyncio.run(take_all(operator, BACKEND_EVENTS))] == ["0192-1"]
    assert ids(operator) == []


def test_one_whose_queue_is_gone_stays_and_is_named(operator: Operator) -> None:
    bury(operator, event("failed", "0192-1"))
    operator.node.management.delete_queue(operator.wire(BACKEND_EVENTS))
    said = operator.run("dead", "redrive", "--all", status=1)
    assert "✗ 0192-1 stays: there is no queue" in said.stdout
    assert "0 put back, 1 kept." in said.stderr
    assert ids(operator) == ["0192-1"]


def test_they_are_thrown_away_only_when_that_was_said(operator: Operator) -> None:
    bury(operator, event("failed", "0192-1"), event("failed", "0192-2"))
    assert "Say --yes" in operator.run("dead", "discard", "--all", status=1).stderr
    assert ids(operator) == ["0192-1", "0192-2"]
    (outcome,) = operator.ask("dead", "discard", "0192-2", "--yes")
    assert (outcome["id"], outcome["fate"]) == ("0192-2", "discarded")
    assert ids(operator) == ["0192-1"]
    assert "1 thrown away, 0 kept." in operator.run("dead", "discard", "--all", "--yes").stderr
    assert ids(operator) == []


def test_on_a_terminal_it_is_asked_first(operator: Operator, monkeypatch: pytest.MonkeyPatch) -> None:
    bury(operator, event("failed", "0192-1"))
    monkeypatch.setattr("ktrdr.cli.dead.can_ask", lambda: True)
    refused = operator.run("dead", "discard", "0192-1", status=1, typed="n\n")
    assert "Throw 1 dead letter away, for ever?" in refused.output
    assert ids(operator) == ["0192-1"]
    operator.run("dead", "discard", "0192-1", typed="y\n")
    assert ids(operator) == []


@pytest.mark.parametrize("command", ["redrive", "discard"])
@pytest.mark.parametrize("arguments", [[], ["x", "--all"], ["x", "--reason", "y"], ["--reason", "y"]])
def test_it_must_be_clear_which_are_meant(operator: Operator, command: str, arguments: list[str]) -> None:
    bury(operator, event("failed", "x"))
    error = operator.ask("dead", command, *arguments, status=1)["error"]
    assert error["message"] == "It is not clear which dead letters are meant."
    assert ids(operator) == ["x"]


def test_one_that_is_not_there_is_an_error_and_changes_nothing(operator: Operator) -> None:
    bury(operator, event("failed", "0192-1"))
    for command in (["show", "zzz"], ["redrive", "0192-1", "zzz"], ["discard", "--yes", "0192-1", "zzz"]):
        assert "There is no dead letter 'zzz'." in operator.run("dead", *command, status=1).stderr
    assert ids(operator) == ["0192-1"]


def test_two_operators_at_once_move_each_letter_exactly_once(operator: Operator) -> None:
    names = {f"m{number}" for number in range(40)}
    bury(operator, *(event("failed", name) for name in names))
    command = [sys.executable, "-m", "ktrdr.cli.main", "dead", "redrive", "--all", "--json"]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, env=os.environ, cwd=ROOT) for _ in range(2)]
    for process in both:
        process.communicate(timeout=60)
    assert {process.returncode for process in both} == {0}
    moved = [message.message_id for message in asyncio.run(take_all(operator, BACKEND_EVENTS))]
    # Between them they have all; one that looked while the other held some has left none behind.
    assert len(moved) == len(set(moved))
    assert set(moved) == names
    assert ids(operator) == []


def test_an_operator_who_is_killed_loses_none(operator: Operator) -> None:
    names = [f"m{number}" for number in range(300)]
    bury(operator, *(event("failed", name) for name in names))
    command = [sys.executable, "-m", "ktrdr.cli.main", "dead", "redrive", "--all"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, env=os.environ, cwd=ROOT)

    async def until_some_have_moved() -> list[Message]:
        bus = operator.bus()
        consumer = await bus.consume(BACKEND_EVENTS, prefetch=500, consumer_tag="test")
        async with asyncio.timeout(60):
            moved = [(await anext(consumer)).message]
        process.kill()
        await asyncio.to_thread(process.wait)
        await consumer.cancel()
        await bus.close()
        return moved

    assert asyncio.run(until_some_have_moved())
    process.communicate()
    moved = {message.message_id for message in asyncio.run(take_all(operator, BACKEND_EVENTS))}
    assert moved
    assert moved | set(ids(operator)) == set(names)


def test_a_request_goes_back_to_its_lane(operator: Operator) -> None:
    async def reject() -> None:
        bus = operator.bus()
        await bus.declare(shared_topology())
        request = replace(event("requested", "0192-1"), expiration_s=3600.0)
        await bus.publish(
            request, exchange="ktrdr.requests", routing_key="gpu", mandatory=True, timeout_s=60.0
        )
        delivery = await bus.get(lane_queue("gpu"))
        assert delivery is not None
        await delivery.reject("the agent cannot read it")
        await bus.close()

    asyncio.run(reject())
    (letter,) = operator.ask("dead", "list")
    assert letter["reason"] == "the agent cannot read it"
    operator.run("dead", "redrive", "0192-1")
    (back,) = asyncio.run(take_all(operator, lane_queue("gpu")))
    assert (back.message_id, back.expiration_s) == ("0192-1", None)


def test_what_a_dead_letter_names_is_not_cleaned_away_until_the_letter_is_gone(
    operator: Operator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KTRDR_HOME", str(tmp_path))
    OperationStore.open(load_settings()).close()
    blobs = DirectoryBlobStore(tmp_path / "blobs")
    ref = blobs.put(b"bars")
    long_ago = datetime.now(UTC).timestamp() - timedelta(days=30).total_seconds()
    os.utime(tmp_path / "blobs" / ref.sha256[:2] / ref.sha256[2:], (long_ago, long_ago))
    letter = event("failed", "0192-1")
    bury(operator, replace(letter, body=letter.body + ref.uri.encode()))
    found = operator.ask("clean", "--apply")
    assert (found["refuse"], found["left_alone"]) == ([], [])
    assert blobs.exists(ref.sha256)
    assert ids(operator) == ["0192-1"]
    operator.run("dead", "discard", "--all", "--yes")
    assert [each["what"] for each in operator.ask("clean", "--apply")["refuse"]] == ["blobs"]
    assert not blobs.exists(ref.sha256)
