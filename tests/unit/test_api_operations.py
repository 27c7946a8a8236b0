"""Operations by way of the HTTP API: listed, shown, followed, cancelled."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from datetime import timedelta
from typing import Any

import httpx
import pytest

from ktrdr.backend.api.events import EventStream, Tellings
from ktrdr.backend.api.server import serving
from ktrdr.backend.states import State
from ktrdr.events import DatasetKind
from tests.unit.api_cases import Api
from tests.unit.backend_cases import PATIENCE_S, eventually, wish

OPERATIONS = "/api/v1/operations"


async def page(client: httpx.AsyncClient, **query: Any) -> Any:
    answer = await client.get(OPERATIONS, params=query)
    assert answer.status_code == 200, answer.text
    return answer.json()


def ids(found: Any) -> list[str]:
    return [each["operation_id"] for each in found["data"]]


# --- lists ----------------------------------------------------------------------------------------


async def test_pages_by_cursor_have_every_operation_once_though_others_come(
    api: Api, client: httpx.AsyncClient
) -> None:
    made = [await api.submitted() for _ in range(7)]
    seen: list[str] = []
    cursor: str | None = None
    while True:
        found = await page(client, limit=3, **({"cursor": cursor} if cursor else {}))
        seen += ids(found)
        cursor = found["next_cursor"]
        if cursor is None:
            break
        await api.submitted()
    assert seen == made[::-1]


async def test_pages_by_offset_are_those_that_former_clients_know(
    api: Api, client: httpx.AsyncClient
) -> None:
    made = [await api.submitted() for _ in range(5)]
    found = await page(client, limit=2, offset=2)
    assert ids(found) == made[::-1][2:4]
    assert (found["success"], found["total_count"], found["active_count"]) == (True, 5, 5)
    assert ids(await page(client, sort="created_at", limit=2)) == made[:2]


async def test_operations_are_found_by_status_state_and_strategy(api: Api, client: httpx.AsyncClient) -> None:
    waiting, cancelled = await api.submitted(), await api.submitted()
    await api.backend.cancel(cancelled, "because")
    assert ids(await page(client, status="pending")) == [waiting]
    assert ids(await page(client, status="cancelled")) == [cancelled]
    assert ids(await page(client, state="pending", active_only=True)) == [waiting]
    assert ids(await page(client, strategy="momentum", active_only=True)) == [waiting]
    for nothing in (
        {"status": "resuming"},
        {"status": "running", "state": "pending"},
        {"strategy": "another"},
        {"operation_type": "backtesting"},
    ):
        assert ids(await page(client, **nothing)) == []
    found = await page(client)
    assert (found["total_count"], found["active_count"]) == (2, 1)


@pytest.mark.parametrize("cursor", ["x", "é", "====", "W10", "WyIyMDI2IiwgMV0", "bnVsbA", "W" * 400])
async def test_what_is_no_cursor_is_refused(client: httpx.AsyncClient, cursor: str) -> None:
    answer = await client.get(OPERATIONS, params={"cursor": cursor})
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid-cursor")


@pytest.mark.parametrize(
    "query",
    [
        {"limit": 0},
        {"limit": 1001},
        {"status": "nonsense"},
        {"sort": "name"},
        {"strategy": "a\0b"},
        {"offset": -1},
    ],
)
async def test_a_query_that_makes_no_sense_is_refused(client: httpx.AsyncClient, query: Any) -> None:
    answer = await client.get(OPERATIONS, params=query)
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid-request")


# --- one operation --------------------------------------------------------------------------------


async def test_the_dates_of_an_operation_are_those_of_its_bars(api: Api, client: httpx.AsyncClient) -> None:
    (bars,) = wish().datasets
    earlier = bars.start - timedelta(days=400)
    context = bars.model_copy(
        update={"kind": DatasetKind.CONTEXT, "symbol": "fred_DGS2", "timeframe": "1d", "start": earlier}
    )
    operation_id = await api.submitted(datasets=(bars, context))
    shown = (await client.get(f"{OPERATIONS}/{operation_id}")).json()["data"]
    assert shown["metadata"]["start_date"] == "2024-01-01T00:00:00Z"


async def test_an_operation_is_shown_with_its_whole_history(api: Api, client: httpx.AsyncClient) -> None:
    async with api.at_work():
        operation_id = await api.submitted()
        run = await api.agent.take()
        await api.until(operation_id, State.RUNNING)
        await api.agent.progress(run, 1, epoch=3, epochs=10, metrics={"val_loss": 0.5})
        async with asyncio.timeout(PATIENCE_S):
            async for record in api.backend.watch(operation_id):
                if record.progress is not None:
                    break
        await api.agent.finish(run)
        await api.until(operation_id, State.COMPLETED)
    shown = (await client.get(f"{OPERATIONS}/{operation_id}")).json()["data"]
    assert (shown["status"], shown["state"], shown["attempt"]) == ("completed", "completed", 1)
    assert shown["model"] == "momentum/EURUSD_1h_v1"
    assert shown["progress"]["percentage"] == 100
    assert shown["progress"]["context"]["metrics"] == {"val_loss": 0.5}
    assert (shown["progress"]["items_processed"], shown["progress"]["items_total"]) == (3, 10)
    assert shown["metadata"]["symbol"] == "EURUSD"
    assert shown["metadata"]["start_date"] == "2024-01-01T00:00:00Z"
    assert shown["metrics"]["accuracy"] == 0.5
    assert shown["history"][0]["kind"] == "submitted"
    assert shown["history"][-1]["kind"] == "model_persisted"
    assert [(each["attempt"], each["agent_id"]) for each in shown["attempts"]] == [(1, "agent-1")]
    assert shown["attempts"][0]["ended_at"] is not None


@pytest.mark.parametrize("path", ["", "/events", "/results", "/metrics"])
async def test_an_operation_that_is_not_there_is_not_found(client: httpx.AsyncClient, path: str) -> None:
    answer = await client.get(f"{OPERATIONS}/op-unknown{path}")
    assert (answer.status_code, answer.json()["code"]) == (404, "no-such-operation")
    assert (await client.get(f"{OPERATIONS}/%00{path}")).status_code == 400


async def test_metrics_are_the_newest_while_it_runs_and_results_there_are_none(
    api: Api, client: httpx.AsyncClient
) -> None:
    operation_id = await api.submitted()
    metrics = (await client.get(f"{OPERATIONS}/{operation_id}/metrics")).json()["data"]["metrics"]
    assert (metrics["epochs"], metrics["total_epochs_completed"]) == ([], 0)
    answer = await client.get(f"{OPERATIONS}/{operation_id}/results")
    assert (answer.status_code, answer.json()["code"]) == (409, "no-results")


# --- cancelling -----------------------------------------------------------------------------------


@pytest.mark.parametrize("former", [True, False])
async def test_an_operation_is_cancelled_once_and_again_without_harm(
    api: Api, client: httpx.AsyncClient, former: bool
) -> None:
    operation_id = await api.submitted()
    method, path = ("DELETE", "") if former else ("POST", "/cancel")
    for body in ({"reason": "wrong dates", "force": True}, None):
        answer = await client.request(method, f"{OPERATIONS}/{operation_id}{path}", json=body)
        assert answer.status_code == 200
        assert answer.json()["data"]["status"] == "cancelled"
    message = answer.json()["data"]["message"]
    assert message.startswith("wrong dates (by a operator")


async def test_what_has_ended_otherwise_cannot_be_cancelled(api: Api, client: httpx.AsyncClient) -> None:
    async with api.at_work():
        operation_id = await api.submitted()
        await api.agent.finish(await api.agent.take())
        await api.until(operation_id, State.COMPLETED)
        answer = await client.post(f"{OPERATIONS}/{operation_id}/cancel")
    assert (answer.status_code, answer.json()["code"]) == (409, "already-ended")


# --- events ---------------------------------------------------------------------------------------


def parse(text: str) -> list[dict[str, str]]:
    """The events of a stream, as a browser reads them."""
    found = []
    for block in text.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
        if "event" in fields:
            found.append(fields)
    return found


def history_of(events: list[dict[str, str]]) -> list[str]:
    return [json.loads(each["data"])["kind"] for each in events if each["event"] == "history"]


@asynccontextmanager
async def stream(
    url: str, token: str, operation_id: str, last_event_id: str | None = None
) -> AsyncIterator[AsyncIterator[dict[str, str]]]:
    """Follow an operation over a real connection."""
    headers = {"Authorization": f"Bearer {token}"}
    if last_event_id is not None:
        headers["Last-Event-ID"] = last_event_id

    async def events(answer: httpx.Response) -> AsyncIterator[dict[str, str]]:
        text = ""
        async for piece in answer.aiter_text():
            text += piece
            *whole, text = text.split("\n\n")
            for event in parse("\n\n".join(whole)):
                yield event

    async with (
        asyncio.timeout(PATIENCE_S),
        httpx.AsyncClient(timeout=PATIENCE_S) as client,
        client.stream("GET", f"{url}{OPERATIONS}/{operation_id}/events", headers=headers) as answer,
    ):
        assert answer.headers["content-type"].startswith("text/event-stream")
        async with aclosing(events(answer)) as following:
            yield following


async def test_who_comes_back_gets_what_was_missed_and_nothing_twice(api: Api) -> None:
    token = api.token()
    async with api.at_work(), serving(api.app, "127.0.0.1", 0) as (host, port):
        url = f"http://{host}:{port}"
        operation_id = await api.submitted()
        first: list[dict[str, str]] = []
        async with stream(url, token, operation_id) as events:
            run = await api.agent.take()
            async for event in events:
                first.append(event)
                if event["event"] == "operation" and json.loads(event["data"])["state"] == "running":
                    break
        last_id = [each["id"] for each in first if "id" in each][-1]
        await api.agent.finish(run)
        await api.until(operation_id, State.COMPLETED)
        async with stream(url, token, operation_id, last_id) as events:
            second = [event async for event in events]
        whole = (await api.client(token).get(f"{OPERATIONS}/{operation_id}")).json()["data"]["history"]
    assert history_of(first) + history_of(second) == [each["kind"] for each in whole]
    assert second[-1] == {"event": "end", "data": "{}", "id": "end"}
    assert json.loads(second[-2]["data"])["status"] == "completed"


async def test_progress_is_told_and_who_saw_the_end_is_told_not_to_come_back(
    api: Api, client: httpx.AsyncClient
) -> None:
    token = api.token()
    async with api.at_work(), serving(api.app, "127.0.0.1", 0) as (host, port):
        operation_id = await api.submitted()
        run = await api.agent.take()
        told = []
        async with stream(f"http://{host}:{port}", token, operation_id) as events:
            async for event in events:
                data = json.loads(event["data"])
                told.append(data.get("progress_percentage"))
                if data.get("state") == "running" and told[-1] == 0:
                    await api.agent.progress(run, 1, fraction=0.25)
                if told[-1] == 25:
                    await api.agent.finish(run)
    assert told[-2:] == [100, None]
    answer = await client.get(f"{OPERATIONS}/{operation_id}/events", headers={"Last-Event-ID": "end"})
    assert (answer.status_code, answer.content) == (204, b"")


@pytest.mark.parametrize("last_event_id", ["x", "-1", "1.5", "9" * 19, "²"])
async def test_what_is_no_id_of_an_event_is_refused(
    api: Api, client: httpx.AsyncClient, last_event_id: str
) -> None:
    operation_id = await api.submitted()
    answer = await client.get(
        f"{OPERATIONS}/{operation_id}/events", headers={"Last-Event-ID": last_event_id.encode()}
    )
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid-event-id")


async def test_something_is_sent_while_nothing_happens(api: Api) -> None:
    operation_id = await api.submitted()
    closing = asyncio.Event()
    answer = EventStream(Tellings(api.service, closing), operation_id, 0, ping_s=0.01)
    pieces = []
    async with asyncio.timeout(PATIENCE_S):
        async for piece in answer.body_iterator:
            pieces.append(bytes(piece))
            if pieces.count(b": still there\n\n") == 3:
                closing.set()
    assert b"event: operation" in b"".join(pieces)


async def test_a_watcher_that_never_reads_has_nothing_kept_for_it_but_the_newest(api: Api) -> None:
    async with api.at_work():
        operation_id = await api.submitted()
        run = await api.agent.take()
        await api.until(operation_id, State.RUNNING)
        answer = EventStream(Tellings(api.service, asyncio.Event()), operation_id, 0)
        pieces = answer.body_iterator
        while b"event: operation" not in bytes(await anext(pieces)):
            pass
        for sequence in range(1, 500):
            await api.agent.progress(run, sequence, fraction=sequence / 1000)
        await api.agent.finish(run)
        await api.until(operation_id, State.COMPLETED)
        rest = parse(b"".join([bytes(piece) async for piece in pieces]).decode())
    assert [each["event"] for each in rest][-2:] == ["operation", "end"]
    assert len([each for each in rest if each["event"] == "operation"]) <= 3
    assert history_of(rest)[-1] == "model_persisted"


async def test_watchers_do_not_keep_the_server_from_stopping(api: Api) -> None:
    token = api.token()
    async with api.at_work():
        operation_id = await api.submitted()
        async with AsyncExitStack() as watcher, asyncio.timeout(PATIENCE_S):
            async with serving(api.app, "127.0.0.1", 0, stop_within_s=1000) as (host, port):
                following = stream(f"http://{host}:{port}", token, operation_id)
                events = await watcher.enter_async_context(following)
                await anext(events)
            assert "end" not in [event["event"] async for event in events]


async def test_many_watchers_of_one_operation_all_see_its_end(api: Api) -> None:
    async with api.at_work():
        operation_id = await api.submitted()

        tellings = Tellings(api.service, asyncio.Event())

        async def follow() -> list[str]:
            answer = EventStream(tellings, operation_id, 0)
            return history_of(parse(b"".join([bytes(p) async for p in answer.body_iterator]).decode()))

        watching = [asyncio.create_task(follow()) for _ in range(1_000)]
        await api.agent.finish(await api.agent.take())
        async with asyncio.timeout(PATIENCE_S):
            seen = await asyncio.gather(*watching)
    assert all(kinds == seen[0] for kinds in seen)
    assert seen[0][-1] == "model_persisted"


async def test_others_have_their_turn_while_many_are_told(api: Api) -> None:
    turn = 0
    told_in: list[int] = []
    watching: set[int] = set()

    async def take_turns() -> None:
        nonlocal turn
        while True:
            turn += 1
            await asyncio.sleep(0)

    async def watch(tellings: Tellings, operation_id: str, number: int) -> None:
        async with (
            tellings.of(operation_id) as telling,
            aclosing(telling.records(PATIENCE_S)) as records,
        ):
            async for record in records:
                assert record is not None
                if record.state is State.CANCELLED:
                    told_in.append(turn)
                else:
                    watching.add(number)

    async with api.at_work():
        operation_id, tellings = await api.submitted(), Tellings(api.service, asyncio.Event())
        await api.until(operation_id, State.QUEUED)
        async with asyncio.timeout(PATIENCE_S), asyncio.TaskGroup() as group:
            for number in range(100):
                group.create_task(watch(tellings, operation_id, number))
            await eventually(lambda: len(watching) == 100, "all to watch")
            others = asyncio.create_task(take_turns())
            await api.backend.cancel(operation_id, "enough")
        others.cancel()
    assert len(told_in) == 100
    assert len(set(told_in)) > 2
