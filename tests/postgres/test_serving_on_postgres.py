"""Backends on several machines that share a PostgreSQL: each has a home of its own."""

import signal
from pathlib import Path
from typing import Any

import pytest

from ktrdr.backend.states import State
from ktrdr.settings import Settings
from tests.broker.node import PrivateNode
from tests.contract.virtual_clock import VirtualClock
from tests.e2e.deployment import Deployment
from tests.e2e.installation import epochs
from tests.e2e.waiting import eventually
from tests.unit.backend_cases import started

pytestmark = [pytest.mark.postgres, pytest.mark.xdist_group("postgres")]


async def test_a_process_on_another_machine_is_not_taken_for_dead_until_it_is(
    tmp_path: Path, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ktrdr.backend.server_instances.RESTART_GRACE_S", 0.0)
    options: dict[str, Any] = {"clock": VirtualClock(), "database_url": postgres_url}
    async with started(tmp_path / "there", **options) as there:
        async with started(tmp_path / "here", **options) as here:
            operation_id = await here.submit()
            await here.pass_time(10)
            assert here.get(operation_id).owner == here.backend.instance
            assert not there.store.is_interrupted(here.get(operation_id))
        await there.pass_time(5)
        assert there.get(operation_id).owner == there.backend.instance


@pytest.mark.broker
@pytest.mark.fault
@pytest.mark.long
def test_a_backend_that_is_killed_is_succeeded_by_one_on_another_machine(
    tmp_path: Path, private_node: PrivateNode, postgres_url: str
) -> None:
    with Deployment(tmp_path, private_node) as deployment:
        blobs = tmp_path / "blobs"
        deployment.variables |= {"KTRDR_DATABASE_URL": postgres_url, "KTRDR_BLOB_STORE": str(blobs)}
        deployment.settings = Settings(
            home=deployment.home,
            models_dir=deployment.models,
            database_url=postgres_url,  # type: ignore[arg-type]  # pydantic makes a secret of it
            blob_store=str(blobs),
        )
        first = deployment.serve()
        deployment.ready_agent("alpha", KTRDR_BLOB_STORE=str(blobs))
        operation = deployment.submit(*epochs(300))
        eventually(
            lambda: deployment.has_reached_epoch(1, operation=operation),
            within_s=60,
            otherwise=deployment.describe,
        )
        elsewhere = {"KTRDR_HOME": str(tmp_path / "elsewhere")}
        refused = deployment.start("serve", **elsewhere)
        assert refused.wait() == 1
        assert f"process {first.process.pid}" in refused.stderr
        first.send(signal.SIGKILL)
        first.process.wait()
        deployment.serve(**elsewhere)
        deployment.wait_for_all()
        (ended,) = deployment.operations()
        assert (ended.state, ended.attempt) == (State.COMPLETED, 1)
        assert deployment.versions() == [ended.model]
        deployment.wait_for_empty_queues()
