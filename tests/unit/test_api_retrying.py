"""What has failed or was cancelled is asked for once more by way of the HTTP API, as it was recorded."""

from datetime import timedelta
from typing import Any

import httpx
import pytest

from ktrdr.backend.audit import audit_entries
from ktrdr.backend.housekeeping import tidy
from ktrdr.backend.instances import BROKER_OWNER
from ktrdr.backend.retention import Retention
from ktrdr.backend.states import State
from ktrdr.backend.tokens import Role
from ktrdr.blobs.directory import DirectoryBlobStore
from ktrdr.events import FailureCause, TrainingRequested
from tests.unit.api_cases import Api, bars_of, cancelled

OPERATIONS = "/api/v1/operations"


async def retry(client: httpx.AsyncClient, operation_id: str, key: str = "", **body: Any) -> httpx.Response:
    headers = {"Idempotency-Key": key} if key else {}
    return await client.post(f"{OPERATIONS}/{operation_id}/retry", json=body or None, headers=headers)


def request_of(api: Api, operation_id: str) -> TrainingRequested:
    found = api.store.find_request(operation_id)
    assert found is not None
    return found[1]


def codes(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["code"]


async def test_what_failed_is_repeated_as_it_was_recorded(api: Api, client: httpx.AsyncClient) -> None:
    async with api.at_work():
        first = await api.submitted(datasets=bars_of(api), seed=11)
        run = await api.agent.take()
        await api.agent.fail(run, FailureCause.STRATEGY_ERROR)
        await api.until(first, State.FAILED)
        answer = await retry(client, first)
        assert answer.status_code == 202
        again = answer.json()["task_id"]
        assert answer.headers["location"] == f"{OPERATIONS}/{again}"
        assert again != first
        old, new = request_of(api, first), request_of(api, again)
        assert (new.strategy, new.datasets, new.seed) == (old.strategy, old.datasets, 11)
        await api.agent.finish(await api.agent.take())
        await api.until(again, State.COMPLETED)
    shown = (await client.get(f"{OPERATIONS}/{again}")).json()["data"]
    assert shown["retry_of"] == first
    assert f"repeats {first}, which failed" in [each["message"] for each in shown["history"]]
    before = (await client.get(f"{OPERATIONS}/{first}")).json()["data"]
    assert (before["status"], before["retry_of"]) == ("failed", None)
    assert before["history"][-1]["message"] == f"repeated as {again}"


async def test_mode_gpu_and_seed_may_differ(api: Api, client: httpx.AsyncClient) -> None:
    first = await cancelled(api)
    answer = await retry(client, first, execution_mode="local", seed=12)
    made = answer.json()
    assert (made["operation"]["seed"], made["decision"]["mode"]) == (12, "local")
    refused = await retry(client, first, require_gpu=True)
    assert codes(refused) == (409, "nowhere-to-train")


async def test_a_lane_that_is_named_is_waited_in(api: Api, client: httpx.AsyncClient) -> None:
    first = await cancelled(api)
    once = (await retry(client, first, lane="quick")).json()
    assert (once["decision"]["where"], once["operation"]["decision"]) == ("host", None)
    api.store.cancel(once["task_id"], "enough")
    again = (await retry(client, once["task_id"])).json()["task_id"]
    assert request_of(api, again).lane == "quick"
    assert (api.store.get(again).owner, api.store.get(again).place) == (BROKER_OWNER, None)
    assert codes(await retry(client, first, lane="quick", execution_mode="auto")) == (400, "invalid-request")


@pytest.mark.parametrize("state", ["pending", "completed"])
async def test_what_has_not_failed_is_not_repeated(api: Api, client: httpx.AsyncClient, state: str) -> None:
    async with api.at_work():
        operation_id = await api.submitted(datasets=bars_of(api))
        if state == "completed":
            await api.agent.finish(await api.agent.take())
            await api.until(operation_id, State.COMPLETED)
        answer = await retry(client, operation_id)
    assert codes(answer) == (409, "not-retryable")
    assert "only what has failed or was cancelled is repeated" in answer.json()["detail"]
    assert len(api.store.list_operations()) == 1


async def test_asking_again_under_the_same_key_makes_nothing_new(api: Api, client: httpx.AsyncClient) -> None:
    first = await cancelled(api)
    once, twice = [await retry(client, first, key="k") for _ in range(2)]
    assert (once.json()["created"], twice.json()["created"]) == (True, False)
    assert once.json()["task_id"] == twice.json()["task_id"]
    assert codes(await retry(client, first, key="k", seed=3)) == (409, "idempotency-key-taken")
    assert [str(each.kind) for each in api.store.history(first)].count("retried") == 1


async def test_without_its_bars_it_is_refused_with_what_to_do(api: Api, client: httpx.AsyncClient) -> None:
    first = await cancelled(api)
    (bars,) = request_of(api, first).datasets
    DirectoryBlobStore(api.settings.blobs_dir).delete(bars.blob.sha256)
    answer = await retry(client, first)
    assert codes(answer) == (410, "data-gone")
    assert "EURUSD 1h" in answer.json()["detail"]
    assert "Start a new training of momentum with seed 7" in answer.json()["fix"]


async def test_one_that_is_forgotten_meanwhile_is_not_repeated_and_its_bars_are_not_relied_on(
    api: Api, client: httpx.AsyncClient
) -> None:
    """The moment in between: what it asked for was read, and then housekeeping has come."""
    first = await cancelled(api)
    exists = DirectoryBlobStore.exists

    def forgotten_meanwhile(store: DirectoryBlobStore, sha256: str) -> bool:
        found = exists(store, sha256)
        tidy(api.store, Retention(operations=timedelta(seconds=-1), logs=None, audit=None, blobs=None))
        return found

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(DirectoryBlobStore, "exists", forgotten_meanwhile)
        answer = await retry(client, first)
    assert codes(answer) == (404, "no-such-operation")
    assert api.store.list_operations() == []


async def test_viewers_may_not_and_operators_are_written_down(api: Api, client: httpx.AsyncClient) -> None:
    first = await cancelled(api)
    async with api.client(role=Role.VIEWER) as viewer:
        assert codes(await retry(viewer, first)) == (403, "wrong-role")
    again = (await retry(client, first)).json()["task_id"]
    entry = next(each for each in audit_entries(api.store, limit=10) if each.status == 202)
    assert entry.subject == again
    assert "retry" in entry.action
    assert codes(await retry(client, "op-unknown")) == (404, "no-such-operation")
    assert codes(await retry(client, first, mistyped=1)) == (400, "invalid-request")
