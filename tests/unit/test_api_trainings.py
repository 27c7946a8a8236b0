"""Trainings by way of the HTTP API, and what is asked before and after: strategies, models, results."""

import asyncio
from typing import Any

import httpx
import pytest

from ktrdr.backend.states import State
from ktrdr.backend.tokens import Role
from ktrdr.events import TrainingRequested
from tests.unit.api_cases import REPOSITORY, Api, no_audit_entries

TRAININGS = "/api/v1/trainings"
YAML = (REPOSITORY / "strategies" / "eurusd_momentum.yaml").read_text()


async def start(client: httpx.AsyncClient, path: str = "", **body: Any) -> httpx.Response:
    headers = {"Idempotency-Key": key} if (key := body.pop("key", None)) else {}
    return await client.post(f"{TRAININGS}{path}", json=body, headers=headers)


def request_of(api: Api, operation_id: str) -> TrainingRequested:
    found = api.store.find_request(operation_id)
    assert found is not None
    return found[1]


# --- starting -------------------------------------------------------------------------------------


async def test_a_training_is_accepted_with_where_it_runs_and_why(api: Api, client: httpx.AsyncClient) -> None:
    answer = await start(client, strategy_name="eurusd_momentum", seed=7, execution_mode="local")
    assert answer.status_code == 202
    accepted = answer.json()
    operation_id = accepted["task_id"]
    assert answer.headers["location"] == f"/api/v1/operations/{operation_id}"
    assert accepted["decision"]["where"] == "local"
    assert "local was asked for" in accepted["decision"]["reason"]
    assert accepted["operation"]["status"] == "pending"
    assert (accepted["success"], accepted["status"]) == (True, "training_started")
    assert (accepted["symbols"], accepted["timeframes"]) == (["EURUSD"], ["1h"])
    assert (accepted["strategy_name"], accepted["created"]) == ("eurusd_momentum", True)
    assert request_of(api, operation_id).seed == 7
    shown = (await client.get(f"/api/v1/operations/{operation_id}")).json()["data"]
    assert shown["decision"]["mode"] == shown["decision"]["where"] == shown["metadata"]["mode"] == "local"
    assert shown["decision"]["reason"] == accepted["decision"]["reason"]
    assert "decided" in [each["kind"] for each in shown["history"]]


async def test_what_former_clients_send_is_understood(api: Api, client: httpx.AsyncClient) -> None:
    answer = await start(
        client,
        "/start",
        strategy_name="eurusd_momentum",
        symbols=["EURUSD"],
        timeframes=["1h"],
        start_date="2017-02-01",
        end_date="2017-06-30",
        task_id="mine",
        detailed_analytics=True,
    )
    assert answer.status_code == 202, answer.text
    (bars,) = request_of(api, answer.json()["task_id"]).datasets
    assert f"{bars.start:%Y-%m-%d}" >= "2017-02-01"
    assert f"{bars.end:%Y-%m-%d}" <= "2017-06-30"


async def test_a_strategy_may_be_sent_along_and_changed(api: Api, client: httpx.AsyncClient) -> None:
    answer = await start(client, strategy_yaml=YAML, overrides={"training.epochs": 3})
    assert answer.status_code == 202, answer.text
    strategy = request_of(api, answer.json()["task_id"]).strategy
    assert (strategy.yaml, strategy.overrides) == (YAML, {"training.epochs": 3})


async def test_the_same_key_starts_one_training_and_another_wish_under_it_is_refused(
    api: Api, client: httpx.AsyncClient
) -> None:
    first = (await start(client, strategy_name="eurusd_momentum", seed=7, key="k-1")).json()
    again = (await start(client, strategy_name="eurusd_momentum", seed=7, key="k-1")).json()
    assert (first["created"], again["created"]) == (True, False)
    assert first["task_id"] == again["task_id"]
    answer = await start(client, strategy_name="eurusd_momentum", seed=8, key="k-1")
    assert (answer.status_code, answer.json()["code"]) == (409, "idempotency-key-taken")


async def test_who_asks_again_since_the_answer_was_lost_is_told_the_same(
    api: Api, client: httpx.AsyncClient
) -> None:
    wish = {"strategy_yaml": YAML.replace("version:", "scope: universal\nversion:", 1), "key": "k-1"}
    first = (await start(client, **wish)).json()
    assert first["warnings"]
    assert first["bars"]
    again = (await start(client, **wish)).json()
    assert again == {**first, "created": False}
    assert (await start(client, **{**wish, "key": "k-2"})).json()["task_id"] != first["task_id"]


async def test_of_requests_that_come_together_each_gets_its_own_answer_and_line_in_the_audit_log(
    api: Api, client: httpx.AsyncClient
) -> None:
    good = [{"strategy_name": "eurusd_momentum", "seed": seed} for seed in range(6)]
    # Whichever of these two is first has the key.
    rivals = [{"strategy_name": "eurusd_momentum", "seed": seed, "key": "k-1"} for seed in (100, 101)]
    wrong = [{"strategy_name": "eurusd_momentun"}, {"strategy_yaml": "name: x"}]
    answers = await asyncio.gather(*(start(client, **each) for each in [*good, *rivals, *wrong]))
    outcomes = [answer.json().get("code", "done") for answer in answers]
    assert outcomes[:6] == ["done"] * 6
    assert sorted(outcomes[6:8]) == ["done", "idempotency-key-taken"]
    assert outcomes[8:] == ["no-such-strategy", "invalid-strategy"]
    accepted = {answer.json()["task_id"] for answer in answers if answer.status_code == 202}
    assert len(accepted) == 7
    assert {operation.operation_id for operation in api.store.list_operations()} == accepted
    assert {request_of(api, answer.json()["task_id"]).seed for answer in answers[:6]} == set(range(6))
    noted = [(entry.status, entry.outcome, entry.subject) for entry in api.audited()]
    expected = [(202, "done", operation_id) for operation_id in accepted]
    expected += [(409, "idempotency-key-taken", TRAININGS), (404, "no-such-strategy", TRAININGS)]
    assert sorted(noted) == sorted([*expected, (400, "invalid-strategy", TRAININGS)])
    assert {entry.action for entry in api.audited()} == {f"POST {TRAININGS}"}


async def test_what_was_accepted_before_is_in_the_audit_log_once_more(
    api: Api, client: httpx.AsyncClient
) -> None:
    first = await start(client, strategy_name="eurusd_momentum", seed=7, key="k-1")
    await start(client, strategy_name="eurusd_momentum", seed=7, key="k-1")
    subject = first.json()["task_id"]
    assert [(each.status, each.outcome, each.subject) for each in api.audited()] == [
        (202, "done", subject)
    ] * 2


async def test_a_training_that_cannot_be_written_into_the_audit_log_is_not_accepted(
    api: Api, client: httpx.AsyncClient
) -> None:
    with no_audit_entries(api.store):
        answer = await start(client, strategy_name="eurusd_momentum")
    assert (answer.status_code, answer.json()["code"]) == (503, "database-unavailable")
    assert api.store.list_operations() == []
    accepted = (await start(client, strategy_name="eurusd_momentum")).json()["task_id"]
    assert [(entry.status, entry.subject) for entry in api.audited()] == [(202, accepted)]


async def test_an_answer_that_fails_after_a_training_was_accepted_is_written_down_too(
    api: Api, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("ktrdr.backend.api.trainings.accepted_view", broken)
    with pytest.raises(ZeroDivisionError):
        await start(client, strategy_name="eurusd_momentum")
    (operation,) = api.store.list_operations()
    assert [(entry.status, entry.outcome, entry.subject) for entry in api.audited()] == [
        (202, "done", operation.operation_id),
        (500, "defect", operation.operation_id),
    ]


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({}, 400, "invalid-request"),
        ({"strategy_name": "eurusd_momentum", "strategy_yaml": YAML}, 400, "invalid-request"),
        ({"strategy_name": "eurusd_momentum", "symbols": []}, 400, "invalid-request"),
        ({"strategy_name": "eurusd_momentum", "symbols": [" "]}, 400, "invalid-request"),
        ({"strategy_name": "eurusd_momentum", "execution_mode": "moon"}, 400, "invalid-request"),
        ({"strategy_name": "eurusd_momentum", "seed": -1}, 400, "invalid-request"),
        ({"strategy_name": "eurusd_momentum", "excution_mode": "host"}, 400, "invalid-request"),
        ({"strategy_name": "eurusd_momentun"}, 404, "no-such-strategy"),
        ({"strategy_name": "../strategies/eurusd_momentum.yaml"}, 404, "no-such-strategy"),
        ({"strategy_name": str(REPOSITORY / "README.md")}, 404, "no-such-strategy"),
        ({"strategy_yaml": "name: x"}, 400, "invalid-strategy"),
        ({"strategy_name": "eurusd_momentum", "symbols": ["EURUSD", "GOOGL"]}, 422, "unusable-data"),
        ({"strategy_name": "eurusd_momentum", "symbols": ["NOTHING"]}, 422, "unusable-data"),
        ({"strategy_name": "eurusd_momentum", "start_date": "yesterday"}, 422, "unusable-data"),
        (
            {"strategy_name": "eurusd_momentum", "require_gpu": True, "execution_mode": "local"},
            409,
            "nowhere-to-train",
        ),
    ],
)
async def test_what_cannot_be_trained_is_refused_with_the_reason(
    api: Api, client: httpx.AsyncClient, body: Any, status: int, code: str
) -> None:
    answer = await start(client, **body)
    assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text
    assert api.store.list_operations() == []
    if code == "invalid-strategy":
        assert answer.json()["problems"]
    if code == "no-such-strategy":
        assert "strategy_yaml" in answer.json()["fix"]


async def test_the_default_mode_is_changed_by_an_admin_and_counts_at_once(
    api: Api, client: httpx.AsyncClient
) -> None:
    assert (await client.get(f"{TRAININGS}/config")).json()["default_mode"] == "local"
    async with api.client(role=Role.ADMIN) as admin:
        assert (await admin.put(f"{TRAININGS}/config", json={"default_mode": "auto"})).status_code == 200
        assert (await admin.put(f"{TRAININGS}/config", json={"default_mode": "x"})).status_code == 400
    assert (await client.get(f"{TRAININGS}/config")).json()["default_mode"] == "auto"
    accepted = (await start(client, strategy_name="eurusd_momentum")).json()
    assert accepted["decision"]["mode"] == "auto"


# --- strategies -----------------------------------------------------------------------------------


async def test_strategies_are_listed_with_whether_they_are_trained(client: httpx.AsyncClient) -> None:
    found = (await client.get("/api/v1/strategies")).json()["strategies"]
    momentum = next(each for each in found if each["name"] == "eurusd_momentum")
    assert (momentum["status"], momentum["versions"]) == ("untrained", 0)
    assert (momentum["symbol"], momentum["timeframes"]) == ("EURUSD", ["1h"])


async def test_a_strategy_is_checked_without_training_it(client: httpx.AsyncClient) -> None:
    path = "/api/v1/strategies/validate"
    right = (await client.post(path, json={"strategy_name": "eurusd_momentum"})).json()
    assert right["valid"]
    assert len(right["features"]) == 12
    wrong = (await client.post(path, json={"strategy_yaml": YAML.replace("type: rsi", "type: rsu")})).json()
    assert not wrong["valid"]
    assert wrong["problems"][0]["suggestion"] == "rsi"
    assert wrong["problems"][0]["line"] > 1
    assert (await client.post(path, json={})).status_code == 400


async def test_a_strategy_is_explained_without_training_it(client: httpx.AsyncClient) -> None:
    path = "/api/v1/strategies/explain"
    wish = {"strategy_name": "eurusd_momentum", "overrides": {"training.epochs": 9}}
    explained = (await client.post(path, json=wish)).json()["explanation"]
    assert len(explained["features"]) == 12
    assert explained["training"]["epochs"] == 9
    refused = await client.post(path, json={"strategy_yaml": YAML.replace("type: rsi", "type: rsu")})
    assert refused.status_code == 400
    assert refused.json()["problems"][0]["suggestion"] == "rsi"


# --- models ---------------------------------------------------------------------------------------


async def trained(api: Api) -> str:
    """Have the scripted agent make a model, and return the operation's id."""
    async with api.at_work():
        operation_id = await api.submitted()
        await api.agent.finish(await api.agent.take())
        await api.until(operation_id, State.COMPLETED)
    return operation_id


async def test_models_are_listed_shown_and_downloaded(api: Api, client: httpx.AsyncClient) -> None:
    operation_id = await trained(api)
    listed = (await client.get("/api/v1/models")).json()
    assert [each["name"] for each in listed["models"]] == ["momentum/EURUSD_1h_v1"]
    assert listed["next_cursor"] is None
    for version in ("EURUSD_1h_v1", "EURUSD_1h_latest"):
        shown = (await client.get(f"/api/v1/models/momentum/{version}")).json()["model"]
        assert shown["operation_id"] == operation_id
    for name, digest in shown["files"].items():
        answer = await client.get(f"/api/v1/models/momentum/EURUSD_1h_v1/files/{name}")
        assert len(answer.content) == digest["size"]
        assert answer.headers["etag"] == f'"{digest["sha256"]}"'
        assert "sandbox" in answer.headers["content-security-policy"]
    part = await client.get(
        "/api/v1/models/momentum/EURUSD_1h_v1/files/model.safetensors", headers={"Range": "bytes=0-3"}
    )
    assert (part.status_code, part.content) == (206, b"weig")


async def test_nothing_but_the_files_of_a_model_is_read(api: Api, client: httpx.AsyncClient) -> None:
    await trained(api)
    directory = api.settings.models_dir / "momentum" / "EURUSD_1h_v1"
    (directory / "secret").write_text("secret")
    version = "/api/v1/models/momentum/EURUSD_1h_v1"
    for path in (f"{version}/files/secret", f"{version}/files/..%2F..", f"{version}/report"):
        assert (await client.get(path)).status_code in (400, 404)
    assert (await client.get("/api/v1/models/momentum/EURUSD_1h_v2")).json()["code"] == "no-such-model"
    (directory / "metadata.json").unlink()
    (directory / "metadata.json").symlink_to(directory / "secret")
    answer = await client.get(f"{version}/files/metadata.json")
    assert (answer.status_code, answer.json()["code"]) == (410, "model-damaged")


async def test_results_of_a_model_whose_files_are_damaged_say_so(api: Api, client: httpx.AsyncClient) -> None:
    operation_id = await trained(api)
    answer = await client.get(f"/api/v1/operations/{operation_id}/results")
    assert (answer.status_code, answer.json()["code"]) == (410, "model-damaged")
    assert "ktrdr models verify" in answer.json()["fix"]


# --- the installation -----------------------------------------------------------------------------


async def test_prometheus_reads_operations_agents_and_requests(api: Api, client: httpx.AsyncClient) -> None:
    await api.submitted()
    await client.get("/api/v1/operations/op-unknown")
    text = (await client.get("/metrics")).text
    assert 'ktrdr_operations{state="pending"} 1.0' in text
    assert 'ktrdr_agents{status="ready"} 0.0' in text
    route = 'route="/api/v1/operations/{operation_id}"'
    assert f'ktrdr_http_requests_total{{method="GET",{route},status="404"}} 1.0' in text
    assert "op-unknown" not in text


async def test_without_a_database_the_backend_lives_and_is_not_ready(
    api: Api, client: httpx.AsyncClient
) -> None:
    assert (await client.get("/api/v1/agents")).json() == {"success": True, "agents": []}
    database = api.settings.home / "ktrdr.db"
    api.store.close()
    for file in api.settings.home.glob("ktrdr.db*"):
        file.unlink()
    database.mkdir()
    answer = await client.get("/health/ready")
    assert (answer.status_code, answer.json()["code"]) == (503, "database-unavailable")
    assert int(answer.headers["retry-after"]) > 0
    assert (await client.get("/health/live")).json() == {"status": "ok"}
