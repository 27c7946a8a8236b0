"""What is written down of who changes something by way of the HTTP API."""

import httpx
import pytest

from ktrdr.backend.audit import audit_entries
from ktrdr.backend.states import State
from ktrdr.backend.tokens import AccessTokens, Role
from tests.unit.api_cases import BY_A_TEST, Api, cancelled, no_audit_entries
from tests.unit.backend_cases import wish

LIST = "/api/v1/operations"
CONFIG = "/api/v1/trainings/config"
TOKENS = "/api/v1/tokens"


async def test_every_write_is_written_down_with_who_what_and_how_it_went(api: Api) -> None:
    operation_id = (await api.backend.submit(wish())).operation.operation_id
    async with api.client(role=Role.OPERATOR) as client:
        await client.post(f"{LIST}/{operation_id}/cancel", json={"reason": "wrong dates"})
        await client.delete(f"{LIST}/op-unknown")
        await client.put(CONFIG, json={"default_mode": "local"})
        await client.get(LIST)
        await client.post("/api/v1/strategies/validate", json={"strategy_yaml": "a"})
    async with api.client(role=Role.ADMIN) as client:
        await client.put(CONFIG, json={"default_mode": "auto"})
        seen = (await client.get("/api/v1/audit?limit=2")).json()
    noted = [(entry.action, entry.subject, entry.status, entry.outcome) for entry in api.audited()]
    assert noted == [
        ("POST /api/v1/operations/{operation_id}/cancel", operation_id, 200, "done"),
        ("DELETE /api/v1/operations/{operation_id}", "op-unknown", 404, "no-such-operation"),
        ("PUT /api/v1/trainings/config", CONFIG, 403, "wrong-role"),
        ("PUT /api/v1/trainings/config", "default_mode=auto", 200, "done"),
    ]
    assert {entry.who.partition(" (")[0] for entry in api.audited()} == {"a operator", "a admin"}
    assert seen["entries"][0]["subject"] == "default_mode=auto"
    assert seen["next_before"] == seen["entries"][-1]["number"]


async def test_what_strangers_try_does_not_fill_the_audit_log(api: Api) -> None:
    async with api.client("") as client:
        await client.post("/api/v1/trainings", json={})
        await client.delete(f"{LIST}/op-1")
    assert api.audited() == []


async def test_a_write_that_meets_a_defect_is_written_down_too(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(api.backend, "cancel", broken)
    headers = {"Authorization": f"Bearer {api.token()}"}
    transport = httpx.ASGITransport(api.app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1", headers=headers) as client:
        answer = await client.delete(f"{LIST}/op-1")
    assert (answer.status_code, answer.json()["code"]) == (500, "defect")
    assert [(entry.status, entry.outcome) for entry in api.audited()] == [(500, "defect")]


async def changes(api: Api) -> list[tuple[str, str, dict[str, str]]]:
    """Return requests each of which changes something."""
    AccessTokens(api.store).create("grafana", Role.VIEWER, witness=BY_A_TEST)
    waiting, other, ended = await api.submitted(), await api.submitted(), await cancelled(api)
    return [
        ("POST", f"{LIST}/{waiting}/cancel", {}),
        ("DELETE", f"{LIST}/{other}", {}),
        ("POST", f"{LIST}/{ended}/retry", {}),
        ("PUT", CONFIG, {"default_mode": "auto"}),
        ("POST", TOKENS, {"name": "ci", "role": "operator"}),
        ("POST", f"{TOKENS}/revoke", {"token": "grafana"}),
    ]


async def state_of(api: Api) -> object:
    """Return what those requests change."""
    operations = [(each.operation_id, each.state) for each in api.store.list_operations()]
    tokens = [(each.token_id, each.revoked_at) for each in AccessTokens(api.store).list()]
    return operations, tokens, (await api.service.trainings.default_mode()).mode


async def test_each_change_is_written_down_once(api: Api) -> None:
    asked = await changes(api)
    async with api.client(role=Role.ADMIN) as client:
        number = audit_entries(api.store, limit=1)[0].number
        answers = [await client.request(how, path, json=body) for how, path, body in asked]
    made = [entry for entry in reversed(audit_entries(api.store, limit=100)) if entry.number > number]
    assert [(entry.status, entry.outcome) for entry in made] == [
        (status, "done") for status in (200, 200, 202, 200, 201, 200)
    ]
    assert {entry.who.partition(" (")[0] for entry in made} == {"a admin"}
    ci = answers[4].json()["record"]["token_id"]
    grafana = answers[5].json()["before"]["token_id"]
    assert [entry.subject for entry in made] == [
        *(path.split("/")[4] for _, path, _ in asked[:2]),
        answers[2].json()["task_id"],
        "default_mode=auto",
        f"ci ({ci}), operator",
        f"grafana ({grafana})",
    ]


async def test_what_cannot_be_written_down_does_not_happen(api: Api) -> None:
    asked = await changes(api)
    async with api.client(role=Role.ADMIN) as client:
        before = await state_of(api)
        with no_audit_entries(api.store):
            for how, path, body in asked:
                answer = await client.request(how, path, json=body)
                assert (answer.status_code, answer.json()["code"]) == (503, "database-unavailable"), path
        assert await state_of(api) == before
        for how, path, body in asked:
            assert (await client.request(how, path, json=body)).is_success, path
    assert await state_of(api) != before


async def test_a_request_that_finds_nothing_left_to_do_is_one_line_more(api: Api) -> None:
    AccessTokens(api.store).create("grafana", Role.VIEWER, witness=BY_A_TEST)
    async with api.client(role=Role.ADMIN) as client:
        for _ in range(2):
            assert (await client.post(f"{TOKENS}/revoke", json={"token": "grafana"})).is_success
    first, again = api.audited()
    assert first.subject.startswith("grafana (")
    assert (again.subject, again.outcome) == ("grafana", "done")


async def test_a_token_may_be_ended_by_showing_it_and_is_nowhere_repeated(api: Api) -> None:
    made = AccessTokens(api.store).create("leaked", Role.OPERATOR, witness=BY_A_TEST)
    secret = made.secret.rpartition("_")[2]
    async with api.client(role=Role.ADMIN) as client:
        ended = await client.post(f"{TOKENS}/revoke", json={"token": made.secret[:-1]})
        unknown = await client.post(f"{TOKENS}/revoke", json={"token": f"ktrdr_zzzzzzzz_{secret}"})
    assert AccessTokens(api.store).recognise(made.secret) is None
    assert [(entry.subject, entry.status) for entry in api.audited()] == [
        (made.record.title, 200),
        ("zzzzzzzz", 400),
    ]
    for said in (ended.text, unknown.text, str(api.audited())):
        assert secret[:16] not in said


async def test_a_cancellation_that_comes_too_late_is_written_down_as_refused(
    api: Api, client: httpx.AsyncClient
) -> None:
    async with api.at_work():
        operation_id = await api.submitted()
        await api.agent.finish(await api.agent.take())
        await api.until(operation_id, State.COMPLETED)
        await client.delete(f"{LIST}/{operation_id}")
    (entry,) = api.audited()
    assert (entry.subject, entry.status, entry.outcome) == (operation_id, 409, "already-ended")
