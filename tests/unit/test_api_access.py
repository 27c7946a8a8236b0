"""Who may do what by way of the HTTP API."""

import asyncio
import re
import socket
from collections.abc import Iterator
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import select

from ktrdr.app.serving import served
from ktrdr.backend.api.rates import RateLimit
from ktrdr.backend.tables import access_tokens
from ktrdr.backend.tokens import AccessTokens, Role
from ktrdr.errors import SettingsError
from tests.unit.api_cases import BY_A_TEST, Api
from tests.unit.backend_cases import settings_in

LIST = "/api/v1/operations"
CONFIG = "/api/v1/trainings/config"


# --- tokens ---------------------------------------------------------------------------------------


def test_a_token_is_recognised_by_itself_alone(api: Api) -> None:
    tokens = AccessTokens(api.store)
    made = tokens.create("grafana", Role.VIEWER, witness=BY_A_TEST)
    assert tokens.recognise(made.secret) == made.record
    last = made.secret[-1]
    for wrong in ("", "ktrdr", made.secret[:-1], made.secret[:-1] + ("0" if last != "0" else "1"), "é" * 50):
        assert tokens.recognise(wrong) is None


def test_the_database_does_not_have_the_token(api: Api) -> None:
    made = AccessTokens(api.store).create("grafana", Role.VIEWER, witness=BY_A_TEST)
    with api.store.reading() as connection:
        row = connection.execute(select(access_tokens)).one()
    secret = made.secret.rpartition("_")[2]
    assert secret not in str(row)
    assert made.secret not in repr(made)


def test_a_token_that_is_revoked_or_has_expired_lets_nobody_in(api: Api) -> None:
    tokens = AccessTokens(api.store)
    revoked = tokens.create("one", Role.VIEWER, witness=BY_A_TEST)
    tokens.revoke("one", witness=BY_A_TEST)
    expired = tokens.create(
        "two", Role.VIEWER, witness=BY_A_TEST, expires_at=datetime.now(UTC) - timedelta(seconds=1)
    )
    assert tokens.recognise(revoked.secret) is None
    assert tokens.recognise(expired.secret) is None


async def test_requests_that_come_together_are_each_judged_by_their_own_token(api: Api) -> None:
    good, other = api.token(Role.VIEWER), api.token(Role.OPERATOR)
    shown = [good, other, f"{good}0", good, "ktrdr_nobody_0", other] * 5
    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(api.client(token)) for token in shown]
        answers = await asyncio.gather(*(client.get(LIST) for client in clients))
    known = (good, other)
    expected = [{200} if token in known else {401, 429} for token in shown]
    assert all(answer.status_code in fitting for answer, fitting in zip(answers, expected, strict=True))


def test_of_several_of_one_name_a_token_is_revoked_by_its_id(api: Api) -> None:
    tokens = AccessTokens(api.store)
    one, other = (tokens.create("ci", Role.OPERATOR, witness=BY_A_TEST) for _ in range(2))
    with pytest.raises(SettingsError, match=one.record.token_id):
        tokens.revoke("ci", witness=BY_A_TEST)
    tokens.revoke(one.record.token_id, witness=BY_A_TEST)
    assert tokens.recognise(one.secret) is None
    assert tokens.recognise(other.secret) is not None
    with pytest.raises(SettingsError, match="no token 'nobody'"):
        tokens.revoke("nobody", witness=BY_A_TEST)


# --- roles ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("token", ["", "nonsense", "ktrdr_abcdefgh_" + "0" * 64])
async def test_without_a_valid_token_there_is_nothing_but_health(api: Api, token: str) -> None:
    async with api.client(token) as client:
        assert (await client.get("/health/live")).status_code == 200
        assert (await client.get("/health/ready")).status_code == 200
        for path in (LIST, "/api/v1/models", "/api/v1/agents", "/metrics", CONFIG):
            answer = await client.get(path)
            assert answer.status_code == 401
            assert answer.headers["www-authenticate"] == "Bearer"
            assert "ktrdr tokens create" in answer.json()["fix"]


@pytest.mark.parametrize(
    ("method", "path", "role"),
    [
        ("GET", LIST, Role.VIEWER),
        ("GET", "/metrics", Role.VIEWER),
        ("POST", f"{LIST}/op-1/cancel", Role.OPERATOR),
        ("DELETE", f"{LIST}/op-1", Role.OPERATOR),
        ("POST", "/api/v1/trainings", Role.OPERATOR),
        ("PUT", CONFIG, Role.ADMIN),
        ("GET", "/api/v1/audit", Role.ADMIN),
        ("GET", "/api/v1/dead-letters", Role.ADMIN),
        ("GET", "/api/v1/dead-letters/0192-1", Role.ADMIN),
        ("DELETE", "/api/v1/dead-letters/0192-1", Role.ADMIN),
        ("POST", "/api/v1/dead-letters/redrive", Role.ADMIN),
        ("POST", "/api/v1/dead-letters/discard", Role.ADMIN),
        ("GET", "/api/v1/cleaning", Role.ADMIN),
        ("POST", "/api/v1/cleaning", Role.ADMIN),
    ],
)
async def test_a_role_may_do_what_it_includes_and_nothing_else(
    api: Api, method: str, path: str, role: Role
) -> None:
    for has in Role:
        async with api.client(role=has) as client:
            answer = await client.request(method, path)
            refused = answer.status_code == 403 and answer.json()["code"] == "wrong-role"
            assert refused is not has.includes(role)


def routes(api: Api) -> list[tuple[str, str]]:
    """Return method and path of all that the description has but health, which is for everybody."""
    return [
        (method.upper(), re.sub(r"\{[^}]*\}", "x", path))
        for path, methods in api.app.openapi()["paths"].items()
        for method in methods
        if not path.startswith("/health/")
    ]


async def test_every_route_asks_who_one_is_and_those_that_write_whether_one_may(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ktrdr.backend.api.app._FAILURES_PER_S", 0)
    api = Api.make(tmp_path, api_rate_per_s=0)
    only_check = {"/api/v1/strategies/validate", "/api/v1/strategies/explain"}
    with api.store:
        assert only_check < {path for _, path in routes(api)}
        async with api.client("") as stranger, api.client(role=Role.VIEWER) as viewer:
            for method, path in routes(api):
                refused = await stranger.request(method, path)
                assert (refused.status_code, refused.json()["code"]) == (401, "no-token"), path
                if method != "GET" and path not in only_check:
                    refused = await viewer.request(method, path)
                    assert (refused.status_code, refused.json()["code"]) == (403, "wrong-role"), path


async def test_without_tokens_only_requests_of_this_machine_are_answered(tmp_path: Path) -> None:
    api = Api.make(tmp_path, unprotected=True)
    assert not api.app.state.protected
    with api.store:
        async with api.client("") as client:
            assert (await client.get(LIST)).status_code == 200
            assert (await client.get(LIST, headers={"Origin": "http://localhost:3000"})).status_code == 200
            for headers in (
                {"Host": "rebound.example"},
                {"Origin": "https://evil.example"},
                {"Origin": "null"},
                {"Origin": "http://["},
            ):
                answer = await client.get(LIST, headers=headers)
                assert (answer.status_code, answer.json()["code"]) == (403, "other-origin")


async def test_without_tokens_it_is_not_served_to_others(tmp_path: Path) -> None:
    settings = settings_in(tmp_path, insecure=True, listen="0.0.0.0:0", device="cpu")
    with pytest.raises(SettingsError, match=r"nothing is served on 0\.0\.0\.0") as refused:
        async with served(settings):
            pass
    assert "--insecure" in str(refused.value.fix)
    assert not settings.home.exists(), "it has begun with work that it cannot serve"


async def test_at_an_address_that_is_taken_no_work_is_begun(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        settings = settings_in(tmp_path, listen=f"127.0.0.1:{taken.getsockname()[1]}", device="cpu")
        with pytest.raises(SettingsError, match="cannot be listened on"):
            async with served(settings):
                pass
    assert not settings.home.exists(), "it has begun with work that it cannot serve"


async def test_what_is_served_says_where_and_asks_for_a_token(tmp_path: Path) -> None:
    async with (
        served(settings_in(tmp_path, listen="127.0.0.1:0", device="cpu")) as app,
        httpx.AsyncClient(base_url=app.address, trust_env=False) as client,
    ):
        assert (await client.get("/health/ready")).status_code == 200
        assert (await client.get(LIST)).status_code == 401
        token = AccessTokens(app.store).create("me", Role.VIEWER, witness=BY_A_TEST).secret
        answer = await client.get(LIST, headers={"Authorization": f"bearer {token}"})
        assert answer.json()["data"] == []
        # Without KTRDR_BLOB_TOKEN no blobs are served, whatever one shows.
        path = f"/api/v1/blobs/{'0' * 64}"
        assert (await client.get(path, headers={"Authorization": f"Bearer {token}"})).status_code == 404


# --- how often ------------------------------------------------------------------------------------


def test_a_client_may_come_twice_as_often_at_once_and_then_has_to_wait() -> None:
    now = 0.0
    rate = RateLimit(2.0, now=lambda: now)
    assert [rate.take("a") for _ in range(4)] == [0] * 4
    assert rate.take("a") == pytest.approx(0.5)
    assert rate.take("b") == 0
    now = 0.5
    assert rate.take("a") == 0
    assert rate.take("a") > 0
    assert all(RateLimit(0).take("a") == 0 for _ in range(1000))


async def test_who_asks_too_often_is_told_when_to_come_back(tmp_path: Path) -> None:
    api = Api.make(tmp_path, api_rate_per_s=0.001)
    with api.store:
        async with api.client() as client, api.client() as other:
            assert (await client.get(LIST)).status_code == 200
            answer = await client.get(LIST)
            assert (answer.status_code, answer.json()["code"]) == (429, "too-many-requests")
            assert int(answer.headers["retry-after"]) > 900
            assert (await other.get(LIST)).status_code == 200


@pytest.fixture
def strict(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Api]:
    """One that listens once to who shows what is no token, and then not for a quarter of an hour."""
    monkeypatch.setattr("ktrdr.backend.api.app._FAILURES_PER_S", 0.001)
    made = Api.make(tmp_path)
    with made.store:
        yield made


async def test_who_guesses_tokens_is_not_even_listened_to_any_more(
    strict: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    monkeypatch.setattr(AccessTokens, "recognise_all", lambda self, shown: asked.extend(shown) or [None])
    async with strict.client("ktrdr_abcdefgh_0") as client:
        assert [(await client.get(LIST)).status_code for _ in range(3)] == [401, 429, 429]
    assert len(asked) == 1


async def test_who_guesses_tokens_locks_out_nobody_who_comes_from_the_same_address(strict: Api) -> None:
    token = strict.token(Role.VIEWER)
    async with strict.client(token) as known, strict.client("ktrdr_abcdefgh_0") as guessing:
        assert (await known.get(LIST)).status_code == 200
        assert [(await guessing.get(LIST)).status_code for _ in range(2)] == [401, 429]
        assert (await known.get(LIST)).status_code == 200
        AccessTokens(strict.store).revoke("a viewer", witness=BY_A_TEST)
        assert (await known.get(LIST)).status_code == 429


# --- limits ---------------------------------------------------------------------------------------


async def test_a_body_that_is_too_large_is_not_read(api: Api) -> None:
    async def endless() -> Any:
        for _ in range(100):
            sent.append(1)
            yield b" " * 65536

    sent: list[int] = []
    async with api.client() as client:
        for path in ("/api/v1/trainings", "/api/v1/strategies/validate", "/api/v1/strategies/explain"):
            sent.clear()
            answer = await client.post(path, content=endless(), headers={"Content-Type": "application/json"})
            assert (answer.status_code, answer.json()["code"]) == (413, "body-too-large")
            assert len(sent) < 20


async def test_what_is_no_request_is_answered_by_a_problem(api: Api) -> None:
    async with api.client() as client:
        for content in (b"", b"{", b"[]", b'{"seed": "x"}', b"\xff"):
            answer = await client.post(
                "/api/v1/trainings", content=content, headers={"Content-Type": "application/json"}
            )
            assert answer.status_code == 400
            assert answer.headers["content-type"] == "application/problem+json"
            assert answer.json()["code"] == "invalid-request"
        answer = await client.get("/api/v1/nothing")
        assert (answer.status_code, answer.json()["code"]) == (404, "not-found")
        assert answer.json()["detail"] == "There is nothing at this address."
        assert "/api/v1/docs" in answer.json()["fix"]


async def test_what_is_wrong_with_a_body_is_said_in_words(api: Api) -> None:
    url, json = "/api/v1/trainings", "application/json"
    async with api.client() as client:
        # As curl sends it if nobody says what it is.
        form = {"Content-Type": "application/x-www-form-urlencoded"}
        answer = await client.post(url, content=b'{"strategy_name": "eurusd_momentum"}', headers=form)
        assert (answer.status_code, answer.json()["detail"]) == (400, "The body is not said to be JSON.")
        assert f"Content-Type: {json}" in answer.json()["fix"]
        answer = await client.post(url, content=b'{"seed": 7,}', headers={"Content-Type": json})
        assert answer.json()["detail"].startswith("The body is not JSON: ")
        assert "(character 1" in answer.json()["detail"]
        answer = await client.get(LIST, params={"status": "done"})
        assert answer.json()["detail"].startswith("query.status: Input should be 'pending', ")


def test_roles_are_ordered() -> None:
    assert [role for role in Role if Role.OPERATOR.includes(role)] == [Role.VIEWER, Role.OPERATOR]
