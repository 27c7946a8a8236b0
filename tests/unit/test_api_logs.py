"""The logs of operations by way of the HTTP API."""

import asyncio
import json
from contextlib import aclosing
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from ktrdr.backend.api.server import serving
from ktrdr.backend.log_reading import LogRecord, read_log
from ktrdr.backend.states import State
from ktrdr.backend.tokens import Role
from ktrdr.client.remote import ServedInstallation
from ktrdr.client.server import Server
from ktrdr.events import LogEntry, TrainingLogged
from tests.unit.api_cases import Api
from tests.unit.backend_cases import Run, eventually
from tests.unit.test_api_operations import parse

OPERATIONS = "/api/v1/operations"


async def log(api: Api, run: Run, *numbers: int, level: Any = "info") -> None:
    """Have the agent say lines, and wait until they are in the database."""
    at = datetime(2026, 3, 1, 12, tzinfo=UTC)
    lines = tuple(
        LogEntry(number=n, at=at, level=level, source="executor", event=f"line {n}", fields={"n": n})
        for n in numbers
    )
    await api.agent.say(TrainingLogged(**run.token, lines=lines))
    await eventually(lambda: f"line {numbers[-1]}" in kept(api, run), f"line {numbers[-1]}")


def kept(api: Api, run: Run) -> list[str]:
    return [line.event for line in read_log(api.store, run.request.operation_id)]


async def running(api: Api) -> Run:
    operation_id = await api.submitted()
    run = await api.agent.take()
    await api.until(operation_id, State.RUNNING)
    return run


async def test_a_log_is_shown_in_pages_and_by_level(api: Api, client: httpx.AsyncClient) -> None:
    async with api.at_work():
        run = await running(api)
        url = f"{OPERATIONS}/{run.request.operation_id}/logs"
        assert (await client.get(url)).json() == {"success": True, "data": [], "next_after": None}
        await log(api, run, 1, 2)
        await log(api, run, 5, level="error")
        first = (await client.get(url, params={"limit": 2})).json()
        rest = (await client.get(url, params={"after": first["next_after"]})).json()
        severe = (await client.get(url, params={"level": "warning"})).json()["data"]
    assert [line["event"] for line in first["data"]] == ["line 1", "line 2"]
    [last] = rest["data"]
    assert rest["next_after"] is None
    assert {name: last[name] for name in ("event", "level", "left_out", "agent_id", "fields", "at")} == {
        "event": "line 5",
        "level": "error",
        "left_out": 2,
        "agent_id": "agent-1",
        "fields": {"n": 5},
        "at": "2026-03-01T12:00:00Z",
    }
    assert severe == [last]


@pytest.mark.parametrize("path", ["/logs", "/logs/stream"])
async def test_logs_are_for_who_may_read_and_of_operations_that_there_are(api: Api, path: str) -> None:
    async with api.client(role=Role.VIEWER) as viewer, api.client("") as nobody:
        assert (await viewer.get(f"{OPERATIONS}/op-unknown{path}")).status_code == 404
        assert (await nobody.get(f"{OPERATIONS}/op-unknown{path}")).status_code == 401


async def test_a_log_is_followed_to_the_end_of_its_operation_and_no_line_is_missed(api: Api) -> None:
    async with api.at_work(), serving(api.app, "127.0.0.1", 0) as address:
        run = await running(api)
        await log(api, run, 1)
        url = f"http://{address[0]}:{address[1]}{OPERATIONS}/{run.request.operation_id}/logs/stream"
        headers = {"Authorization": f"Bearer {api.token()}"}
        text = ""
        async with httpx.AsyncClient(headers=headers, timeout=60) as client:
            async with client.stream("GET", url) as answer:
                assert answer.headers["content-type"].startswith("text/event-stream")
                async for chunk in answer.aiter_text():
                    text += chunk
                    if "line 1" in text and "line 2" not in text:
                        await log(api, run, 2, 3)
                        await api.agent.finish(run)
            events = parse(text)
            assert [each["event"] for each in events] == ["log", "log", "log", "end"]
            assert [json.loads(each["data"])["event"] for each in events[:-1]] == [
                "line 1",
                "line 2",
                "line 3",
            ]
            # Who was cut off goes on where it was, and who has seen the end is told so.
            again = await client.get(url, headers={"Last-Event-ID": events[1]["id"]})
            assert [json.loads(each["data"])["event"] for each in parse(again.text)[:-1]] == ["line 3"]
            assert (await client.get(url, headers={"Last-Event-ID": "end"})).status_code == 204
            assert (await client.get(url, headers={"Last-Event-ID": "no number"})).status_code == 400


async def test_who_follows_a_log_over_a_restart_reads_each_line_once_or_how_many_are_missing(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ktrdr.backend.log_recorder.KEPT_LINES", 5)
    said: list[LogRecord] = []
    away: list[str] = []

    async def follow(url: str, operation_id: str) -> None:
        served = ServedInstallation(Server(url, SecretStr(api.token(Role.VIEWER))))
        async with aclosing(served.follow_log(operation_id, away.append)) as parts:
            async for lines in parts:
                said.extend(lines)

    await api.agent.start()
    async with api.backend, serving(api.app, "127.0.0.1", 0) as (host, port):
        run = await running(api)
        await log(api, run, 1, 2)
        following = asyncio.create_task(follow(f"http://{host}:{port}", run.request.operation_id))
        await eventually(lambda: len(said) == 2, "the first lines")
    await eventually(lambda: bool(away), "that the server is away")
    again = api.successor()
    with again.store:
        async with again.backend:
            await log(again, run, *range(3, 11))  # of which the last five are kept
            async with serving(again.app, host, port):
                await eventually(lambda: len(said) == 7, "the lines of meanwhile")
                await log(again, run, 11, 14)
                await again.agent.finish(run)
                await following
    await api.agent.stop()
    assert [(line.number, line.left_out) for line in said] == [
        *((number, 0) for number in (1, 2)),
        *((6, 3), (7, 0), (8, 0), (9, 0), (10, 0), (11, 0)),
        (14, 2),
    ]
