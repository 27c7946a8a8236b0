"""A database that is locked, or on a full disk, while requests come: they are told, and nothing is lost."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import httpx
import pytest

from ktrdr.backend.database import Database
from tests.small_disk import fill, small_disk
from tests.unit.api_cases import Api

__all__ = ["small_disk"]

OPERATIONS = "/api/v1/operations"


async def train(client: httpx.AsyncClient, seed: int) -> httpx.Response:
    body = {"strategy_name": "eurusd_momentum", "execution_mode": "local", "seed": seed}
    return await client.post("/api/v1/trainings", json=body, headers={"Idempotency-Key": f"seed-{seed}"})


@contextmanager
def locked(database: Path) -> Iterator[None]:
    """Have another process's transaction in the way of every write."""
    with closing(sqlite3.connect(database, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield
        other.execute("ROLLBACK")


async def operations(client: httpx.AsyncClient) -> list[str]:
    answer = await client.get(OPERATIONS)
    assert answer.status_code == 200
    return [each["operation_id"] for each in answer.json()["data"]]


async def test_a_locked_database_refuses_what_is_to_be_written_and_answers_what_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(Database.__init__.__kwdefaults__, "busy_timeout_s", 0.2)
    api = Api.make(tmp_path)
    with api.store:
        async with api.client() as client:
            with locked(api.settings.home / "ktrdr.db"):
                refused = await train(client, 7)
                assert await operations(client) == []
            assert (refused.status_code, refused.json()["code"]) == (503, "database-unavailable")
            assert "locked by another process" in refused.json()["detail"]
            assert int(refused.headers["retry-after"]) > 0
            accepted = await train(client, 7)
            assert accepted.status_code == 202
            assert await operations(client) == [accepted.json()["task_id"]]


async def test_a_full_disk_refuses_what_is_to_be_written_and_loses_nothing(small_disk: Path) -> None:
    api = Api.make(small_disk)
    with api.store:
        async with api.client() as client:
            # So that the bars are there, and only the database has to be written.
            first = (await train(client, 1)).json()["task_id"]
            filler = fill(small_disk)
            refused = [await train(client, seed) for seed in range(2, 40)][-1]
            before = await operations(client)
            filler.unlink()
            assert (refused.status_code, refused.json()["code"]) == (507, "storage-full")
            assert "Free some space" in refused.json()["fix"]
            assert first in before
            accepted = await train(client, 39)
            assert accepted.status_code == 202
            assert await operations(client) == [accepted.json()["task_id"], *before]
