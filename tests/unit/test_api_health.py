"""Health is told at once, and what is told of the database was so a moment ago."""

import asyncio
import threading

import anyio.to_thread
import httpx
import pytest
from starlette.concurrency import run_in_threadpool

from ktrdr.backend.api.health import Readiness
from ktrdr.backend.states import State
from ktrdr.errors import DatabaseUnavailableError
from tests.unit.api_cases import Api
from tests.unit.backend_cases import PATIENCE_S, eventually


class Database:
    """One that may be away, and is asked on a clock that stands still by itself."""

    def __init__(self) -> None:
        self.asked = 0
        self.is_away = False
        self.now = 100.0

    def ask(self) -> None:
        self.asked += 1
        if self.is_away:
            raise DatabaseUnavailableError("It is away.")


@pytest.fixture
def database() -> Database:
    return Database()


@pytest.fixture
def readiness(database: Database) -> Readiness:
    return Readiness(database.ask, now=lambda: database.now)


async def test_who_asks_often_is_told_what_was_so_a_moment_ago(
    database: Database, readiness: Readiness
) -> None:
    for _ in range(100):
        await readiness.check()
    database.now += 0.4
    await readiness.check()
    assert database.asked == 1


async def test_what_was_so_a_second_ago_is_told_to_nobody(database: Database, readiness: Readiness) -> None:
    await readiness.check()
    database.is_away = True
    database.now += 1.0
    assert not readiness.is_known
    with pytest.raises(DatabaseUnavailableError):
        await readiness.check()
    database.is_away = False
    await readiness.check()
    assert database.asked == 3


async def test_who_asks_has_the_database_asked_again_in_time_for_the_next(
    database: Database, readiness: Readiness
) -> None:
    await readiness.check()
    database.now += 0.6
    await readiness.check()  # is not held up
    await eventually(lambda: database.asked == 2, "it to be asked again")
    database.now += 0.6
    database.is_away = True
    async with asyncio.timeout(PATIENCE_S):
        with pytest.raises(DatabaseUnavailableError):
            await _asking_again_and_again(readiness)


async def _asking_again_and_again(readiness: Readiness) -> None:
    while True:
        await readiness.check()
        await asyncio.sleep(0)


async def test_what_was_served_may_be_served_again(database: Database, readiness: Readiness) -> None:
    for _ in range(3):
        await readiness.check()
        database.now += 0.6
        await readiness.check()  # and it is asked once more
        await readiness.close()
        database.now += 1.0
    await readiness.check()
    assert readiness.is_known


async def test_a_backend_whose_results_wait_is_not_ready_and_says_what_for(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ktrdr.backend.settling._HOLD_S", 0.0)
    api.settings.models_dir.mkdir()
    obstacle = api.settings.models_dir / "momentum"
    obstacle.write_text("in the way")
    async with api.at_work(), api.client("") as client:

        async def answer(status: int) -> httpx.Response | None:
            got = await client.get("/health/ready")
            return got if got.status_code == status else None

        operation_id = await api.submitted()
        await api.agent.finish(await api.agent.take())
        problem = (await eventually(lambda: answer(503), "being held up")).json()
        assert problem["code"] == "results-held-up"
        assert str(api.settings.models_dir) in problem["detail"]
        obstacle.unlink()
        await api.until(operation_id, State.COMPLETED)
        await eventually(lambda: answer(200), "being ready again")


async def test_it_is_told_while_all_threads_are_at_work(api: Api) -> None:
    limiter = anyio.to_thread.current_default_thread_limiter()
    before, limiter.total_tokens = limiter.total_tokens, 1
    may_end = threading.Event()
    try:
        async with anyio.create_task_group() as group, api.client("") as client:
            group.start_soon(run_in_threadpool, may_end.wait, 60)
            await eventually(lambda: limiter.borrowed_tokens == 1, "the only thread to be at work")
            for path in ("/health/ready", "/health/live", "/health/ready"):
                answer = await client.get(path)
                assert (answer.status_code, answer.json()) == (200, {"status": "ok"})
            assert limiter.borrowed_tokens == 1
            may_end.set()
    finally:
        may_end.set()
        limiter.total_tokens = before


@pytest.mark.parametrize("path", ["/health/live", "/health/ready"])
async def test_nothing_else_is_asked_of_it(client: httpx.AsyncClient, path: str) -> None:
    assert (await client.get(path)).headers["content-type"] == "application/json"
    answer = await client.post(path)
    assert (answer.status_code, answer.json()["code"]) == (405, "method-not-allowed")
