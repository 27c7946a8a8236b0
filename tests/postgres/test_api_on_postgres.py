"""The HTTP API over PostgreSQL: pages, events, access and the audit log are the same there."""

from pathlib import Path
from typing import Any

import pytest

from ktrdr.backend.states import State
from ktrdr.backend.tokens import Role
from tests.unit.api_cases import Api

pytestmark = [pytest.mark.postgres, pytest.mark.xdist_group("postgres")]

OPERATIONS = "/api/v1/operations"


async def test_it_is_the_same_api(tmp_path: Path, postgres_url: str) -> None:
    api = Api.make(tmp_path, database_url=postgres_url)
    with api.store:
        async with api.at_work(), api.client(role=Role.ADMIN) as client:
            made = [await api.submitted() for _ in range(5)]
            seen: list[str] = []
            more: dict[str, Any] | None = {}
            while more is not None:
                found = (await client.get(OPERATIONS, params={"limit": 2, **more})).json()
                seen += [each["operation_id"] for each in found["data"]]
                more = {"cursor": found["next_cursor"]} if found["next_cursor"] else None
            assert seen == made[::-1]
            run = await api.agent.take()
            await api.agent.finish(run)
            trained = run.request.operation_id
            await api.until(trained, State.COMPLETED)
            assert "event: end" in (await client.get(f"{OPERATIONS}/{trained}/events")).text
            assert (await client.get(OPERATIONS, params={"status": "completed"})).json()["total_count"] == 1
            assert (await client.post(f"{OPERATIONS}/{made[-1]}/cancel")).status_code == 200
            started = await client.post("/api/v1/trainings", json={"strategy_name": "eurusd_momentum"})
            assert started.status_code == 202, started.text
            noted = (await client.get("/api/v1/audit")).json()["entries"]
            assert [each["subject"] for each in noted[:2]] == [started.json()["task_id"], made[-1]]
            assert 'ktrdr_operations{state="completed"} 1.0' in (await client.get("/metrics")).text
