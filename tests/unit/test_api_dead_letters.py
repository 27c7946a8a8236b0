"""Dead letters by way of the HTTP API, on the bus within the backend; on a broker: `tests/broker`."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest
from pydantic import SecretStr

from ktrdr.backend.tokens import Role
from ktrdr.bus.dead_letter_box import LetterChoice
from ktrdr.bus.topology import shared_topology
from ktrdr.events import Envelope, encode
from ktrdr.events.message import Message
from tests.unit.api_cases import NOBODY_READS, Api
from tests.unit.events_cases import example

LETTERS = "/api/v1/dead-letters"
SAID_AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
EVERYTHING = {"all": True}


def event(event_id: str, kind: str = "failed") -> Message:
    return encode(Envelope(example(f"ktrdr.training.{kind}"), event_id, "host-a@machine", SAID_AT))


@pytest.fixture
async def admin(api: Api) -> AsyncIterator[httpx.AsyncClient]:
    await api.bus.declare(shared_topology())
    async with api.client(role=Role.ADMIN) as client:
        yield client


async def ids(admin: httpx.AsyncClient) -> list[str]:
    return [letter["id"] for letter in (await admin.get(LETTERS)).json()["letters"]]


async def test_a_list_says_what_where_why_and_when(api: Api, admin: httpx.AsyncClient) -> None:
    empty = (await admin.get(LETTERS)).json()
    assert empty == {
        "success": True,
        "letters": [],
        "looked_at": 0,
        "may_be_more": False,
        "on_broker": False,
    }
    await api.bury(event("0192-1"), reason="unknown version")
    (letter,) = (await admin.get(LETTERS)).json()["letters"]
    assert letter == {
        "id": "0192-1",
        "message_id": "0192-1",
        "type": "ktrdr.training.failed.v1",
        "operation_id": "op-1",
        "reason": "unknown version",
        "from_queue": NOBODY_READS,
        "sender": "host-a@machine",
        "user_id": None,
        "at": "2026-01-02T03:04:05Z",
        "size_bytes": len(event("0192-1").body),
        "summary": event("0192-1").headers["summary"],
    }


async def test_a_list_may_be_of_a_reason_and_of_the_oldest_alone(api: Api, admin: httpx.AsyncClient) -> None:
    await api.bury(event("a"), event("b"))
    await api.bury(event("c"), reason="Unknown Version")
    page = (await admin.get(LETTERS, params={"reason": "unknown version"})).json()
    assert ([letter["id"] for letter in page["letters"]], page["looked_at"]) == (["c"], 3)
    page = (await admin.get(LETTERS, params={"limit": 2})).json()
    assert ([letter["id"] for letter in page["letters"]], page["may_be_more"]) == (["a", "b"], True)
    assert await ids(admin) == ["a", "b", "c"]


async def test_an_event_is_shown_and_content_by_its_size(api: Api, admin: httpx.AsyncClient) -> None:
    await api.bury(event("0192-1", "model_ready"))
    shown = (await admin.get(f"{LETTERS}/0192")).json()
    (letter,) = shown["letters"]
    assert (shown["count"], letter["unreadable"]) == (1, None)
    assert letter["event"]["manifest"]["strategy"] == "eurusd_momentum"
    assert letter["event"]["inline"]["data"].endswith(" bytes)")
    assert letter["headers"]["attempt"] == 2


ODD = (
    Message(b"", "", ""),
    Message(b"\x00", "\x1b]0;x\x07", "\ud800", correlation_id="\udcff"),
    Message(
        b"\xc1",
        "x",
        "x",
        headers={"n": float("nan"), "inf": float("-inf"), "long": "y" * 100_000, "\ud800": 1},
    ),
    Message(b"\x00" * 13_000_000, "x", "ktrdr.training.failed.v1"),
    replace(event("x"), body=b"\x81\xa1a" * 100_000, content_encoding=None),
    replace(event("x"), headers={"cloudEvents:time": "9999-12-31T23:59:59-23:59", "summary": "s" * 100_000}),
)


async def test_whatever_is_in_a_letter_it_is_told_briefly_and_goes(
    api: Api, admin: httpx.AsyncClient
) -> None:
    for message in ODD:
        await api.bury(message, reason="r" * 100_000)
        listed = await admin.get(LETTERS)
        assert listed.status_code == 200
        assert len(listed.content) < 5_000
        (letter,) = listed.json()["letters"]
        shown = await admin.get(f"{LETTERS}/{letter['id']}")
        assert shown.status_code == 200
        assert len(shown.content) < 500_000
        (whole,) = shown.json()["letters"]
        assert (whole["event"] is None) is (whole["unreadable"] is not None)
        assert whole["body_begins_with_hex"] == message.body[:256].hex()
        gone = await admin.delete(f"{LETTERS}/{letter['id']}")
        assert [each["fate"] for each in gone.json()["outcomes"]] == ["discarded"]
        assert await ids(admin) == []


async def test_of_one_id_some_are_shown_and_all_are_counted(api: Api, admin: httpx.AsyncClient) -> None:
    await api.bury(*[event("same")] * 12, event("other"))
    shown = (await admin.get(f"{LETTERS}/same")).json()
    assert (len(shown["letters"]), shown["count"]) == (10, 12)


async def test_redriven_they_are_back_under_their_own_ids(api: Api, admin: httpx.AsyncClient) -> None:
    message = event("0192-1")
    await api.bury(message, event("0192-2"))
    answer = await admin.post(f"{LETTERS}/redrive", json={"ids": ["0192-1"]})
    (outcome,) = answer.json()["outcomes"]
    assert (outcome["id"], outcome["fate"], outcome["problem"]) == ("0192-1", "redriven", None)
    assert await ids(admin) == ["0192-2"]
    delivery = await api.bus.get(NOBODY_READS)
    assert delivery is not None
    assert delivery.message == message


async def test_one_whose_queue_is_gone_stays_and_the_others_go(api: Api, admin: httpx.AsyncClient) -> None:
    await api.bury(event("a"), queue="ktrdr.control.gone")
    await api.bury(event("b"))
    answer = await admin.post(f"{LETTERS}/redrive", json=EVERYTHING)
    assert answer.status_code == 200
    assert [(each["id"], each["fate"], each["problem"]) for each in answer.json()["outcomes"]] == [
        ("a", "kept", "there is no queue 'ktrdr.control.gone' any more"),
        ("b", "redriven", None),
    ]
    assert await ids(admin) == ["a"]


async def test_those_of_a_reason_are_thrown_away(api: Api, admin: httpx.AsyncClient) -> None:
    await api.bury(event("a"), reason="unknown version")
    await api.bury(event("b"))
    answer = await admin.post(f"{LETTERS}/discard", json={**EVERYTHING, "reason": "version"})
    assert [(each["id"], each["fate"]) for each in answer.json()["outcomes"]] == [("a", "discarded")]
    assert await ids(admin) == ["b"]


async def test_what_names_none_or_several_is_a_problem_and_changes_nothing(
    api: Api, admin: httpx.AsyncClient
) -> None:
    await api.bury(event("0192-1"), event("0192-2"))
    for method, path, body in (
        ("GET", "/zzz", None),
        ("DELETE", "/zzz", None),
        ("POST", "/redrive", {"ids": ["0192-1", "zzz"]}),
        ("POST", "/discard", {"ids": ["0192-1", "zzz"]}),
        ("POST", "/discard", {"ids": [""]}),
        ("DELETE", "/0192", None),
    ):
        answer = await admin.request(method, f"{LETTERS}{path}", json=body)
        assert (answer.status_code, answer.json()["code"]) == (404, "no-such-dead-letter")
        assert answer.json()["fix"]
    assert await ids(admin) == ["0192-1", "0192-2"]


async def test_it_must_be_clear_which_are_meant(api: Api, admin: httpx.AsyncClient) -> None:
    await api.bury(event("a"))
    for body in (
        {},
        {"all": False},
        {"reason": "version"},
        {"all": True, "ids": ["a"]},
        {"ids": ["a"], "reason": "x"},
        {"ids": "a"},
        {"all": True, "limit": 0},
        {"all": True, "reasons": "x"},
    ):
        for what in ("redrive", "discard"):
            answer = await admin.post(f"{LETTERS}/{what}", json=body)
            assert (answer.status_code, answer.json()["code"]) == (400, "invalid-request")
    assert await ids(admin) == ["a"]


async def test_who_looks_does_not_hide_them_from_who_asks_at_the_same_time(api: Api) -> None:
    await api.bury(*[event(name) for name in "abc"])
    office = api.service.dead_letters
    seen: list[list[str]] = []

    async def look() -> None:
        found = await office.list(reason=None, limit=100)
        seen.append([letter.id for letter in found.letters])

    async with asyncio.TaskGroup() as group:
        group.create_task(office.discard(LetterChoice(ids=["a"]), limit=100))
        group.create_task(look())
    assert seen == [["b", "c"]]


async def test_what_is_done_with_them_is_in_the_audit_log(api: Api, admin: httpx.AsyncClient) -> None:
    await api.bury(*[event(f"m{number}") for number in range(25)])
    await admin.post(f"{LETTERS}/redrive", json={"ids": ["m0", "m1"]})
    await admin.delete(f"{LETTERS}/m2")
    await admin.delete(f"{LETTERS}/m2")
    await admin.post(f"{LETTERS}/discard", json={**EVERYTHING, "reason": "read"})
    await admin.get(LETTERS)
    redriven, one, again, rest = ((each.action, each.subject, each.outcome) for each in api.audited())
    assert redriven == (f"POST {LETTERS}/redrive", "m0, m1: 2 redriven", "done")
    assert one == (f"DELETE {LETTERS}/{{letter_id}}", "m2: 1 discarded", "done")
    assert again == (f"DELETE {LETTERS}/{{letter_id}}", "m2", "no-such-dead-letter")
    assert rest[1].startswith("all of reason 'read': 22 discarded (m3, m4, ")
    assert rest[1].endswith(", m22 and 2 more)")


async def test_a_broker_that_is_away_is_told_of_at_once(tmp_path: Path) -> None:
    url = SecretStr("amqp://backend:secret@127.0.0.1:9/")
    api = Api.make(tmp_path, broker_url=url)
    with api.store:
        async with api.client(role=Role.ADMIN) as admin:
            for answer in (
                await admin.get(LETTERS),
                await admin.get(f"{LETTERS}/a"),
                await admin.post(f"{LETTERS}/discard", json=EVERYTHING),
            ):
                assert (answer.status_code, answer.json()["code"]) == (503, "broker-unavailable")
                assert "retry-after" in answer.headers
                assert "127.0.0.1:9" in answer.json()["detail"]
                assert "tried again by itself" not in answer.text
                assert "secret" not in answer.text
        (entry,) = api.audited()
        assert (entry.subject, entry.outcome) == ("all", "broker-unavailable")
